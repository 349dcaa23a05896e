//! `lswitch local`: the local Lambda on its own, for a second terminal and for others' runtimes.

use crate::aws::AwsSettings;
use crate::cmd::settings::home;
use crate::cmd::ui::{self, Ui, print_json};
use crate::cmd::{block_on, interrupted, raise_descriptor_limit};
use crate::lambda::local::{
    Admission, DEFAULT_FUNCTION, LocalFunction, LocalLambda, LocalOptions, Scaling, own_function,
};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;

/// Serve the Lambda Invoke API on this machine
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch local
  export AWS_REGION=us-east-1 AWS_ACCESS_KEY_ID=any AWS_SECRET_ACCESS_KEY=any     what its clients want to see
  aws lambda invoke --endpoint-url http://127.0.0.1:9001 --function-name NAME --payload '{}' \\
      --cli-binary-format raw-in-base64-out out.json
  AWS_ENDPOINT_URL_LAMBDA=http://127.0.0.1:9001 lswitch invoke pagerank --function lswitch --switch 127.0.0.1:7000 ...

On Linux it serves processes of the same user alone. Elsewhere it prints keys, with which its clients have to sign.

Functions are $LSWITCH_HOME/functions/NAME.toml (~/.lswitch/functions), for example:
  command = [\"python3\", \"-m\", \"awslambdaric\", \"app.handler\"]
  handler = \"app.handler\"
  memory_mb = 512
  timeout_s = 30
  [environment]
  PYTHONPATH = \"/home/me/app\"
The function \"lswitch\" is this binary as a worker, unless a file of that name says otherwise.

What AWS does to functions happens here to those that ask for it, with these keys before [environment]:
  cold_start_ms = 300        an environment's first invocation comes no sooner after its start: 0 to 10000
  reuse = false              an environment ends with its first answer
  reserved_concurrency = 4   instances of the function at once; calls above it get 429, events wait
  event_retries = 2          an event that fails is tried again so often: 0 to 2; 0 without it, 2 on AWS
  event_retry_s = 1          after so many seconds, and then after twice that: 0 to 21600; 60 without it, as on AWS
  event_age_s = 60           an event that still waits when it is so old is dropped: 1 to 21600; 21600 without it
  event_twice_every = 10     of so many events one is delivered twice; none without it")]
pub struct Local {
    /// Address of the Invoke API; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9001")]
    listen: SocketAddr,

    /// Function instances at once, over all functions; calls above it are throttled as on AWS
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    concurrency: usize,

    /// New instances of a function at once, and each second after that; calls beyond it are throttled, and so are more
    /// than ten a second for each instance that may be. 1000,100 if nothing else is said; without it there is no rate
    #[arg(
        long,
        value_name = "BURST,RATE",
        num_args = 0..=1,
        default_missing_value = "1000,100"
    )]
    scaling: Option<Scaling>,

    /// Print the endpoint as JSON on stdout once it is bound
    #[arg(long)]
    json: bool,
}

impl Local {
    /// Serves until Ctrl-C or SIGTERM.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<()> {
        raise_descriptor_limit();
        block_on(async {
            let quiet = ui.is_quiet();
            let folder = home()?.join("functions");
            let mut functions = Vec::new();
            if folder.exists() {
                functions = LocalFunction::load_all(&folder)?;
            }
            if !functions
                .iter()
                .any(|function| function.name == DEFAULT_FUNCTION)
            {
                functions.push(own_function(&AwsSettings::default()).await?);
            }
            let names: Vec<String> = functions
                .iter()
                .map(|function| function.name.clone())
                .collect();
            let options = LocalOptions {
                listen: self.listen,
                functions,
                concurrency: self.concurrency,
                scaling: self.scaling,
                admission: Admission::default(),
                log_sink: Some(Arc::new(move |line| ui::echo(quiet, line))),
            };
            let stop = interrupted();
            let local = LocalLambda::start(options).await?;
            if self.json {
                let mut found = json!({ "endpoint": local.endpoint(), "functions": names });
                if let Some(keys) = local.keys() {
                    found["access_key_id"] = keys.access_key.clone().into();
                    found["secret_access_key"] = keys.secret_key.clone().into();
                }
                print_json(&found)?;
            }
            ui.say(format!(
                "the local Lambda serves {} at {}; Ctrl-C ends it",
                names.join(", "),
                local.endpoint()
            ));
            if let Some(keys) = local.keys() {
                ui.say(format!(
                    "its clients sign with AWS_ACCESS_KEY_ID={} AWS_SECRET_ACCESS_KEY={}",
                    keys.access_key, keys.secret_key
                ));
            }
            stop.await;
            local.stop().await;
            ui.say("the local Lambda is down, and its functions with it");
            Ok(())
        })
    }
}
