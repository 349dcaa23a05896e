//! `lswitch function logs`.

use super::own;
use crate::cmd::settings::{AwsArgs, parse_age};
use crate::cmd::ui::print;
use crate::cmd::{Interrupted, block_on, interrupted};
use crate::lambda::function::logs::{self, LogEvent};
use crate::lambda::function::manage::Manager;
use serde_json::json;
use std::pin::pin;
use std::time::{Duration, SystemTime};

/// How often CloudWatch Logs is asked for more.
const POLL: Duration = Duration::from_secs(2);

/// Show what a function's workers print
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch function logs ranker
  lswitch function logs ranker --since 2h
  lswitch function logs ranker --follow

Each line begins with the last letters of its environment's log stream.")]
pub struct Logs {
    /// The function's name
    name: String,

    /// Begin so long ago
    #[arg(long, value_name = "AGE", default_value = "10m", value_parser = parse_age)]
    since: Duration,

    /// Go on until Ctrl-C
    #[arg(long)]
    follow: bool,

    #[command(flatten)]
    aws: AwsArgs,

    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

impl Logs {
    /// Prints them as they come.
    pub fn run(&self) -> anyhow::Result<()> {
        block_on(async {
            let config = self.aws.settings().load().await?;
            own(&Manager::new(&config), &self.name).await?;
            let begin = SystemTime::now() - self.since;
            let begin = begin
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default();
            let mut follower =
                logs::Logs::new(&config).follow(&self.name, begin.as_millis() as i64);
            let mut stop = pin!(interrupted());
            loop {
                let mut printed = Ok(());
                let mut take = |event: LogEvent| {
                    if printed.is_ok() {
                        printed = print(self.line(&event));
                    }
                };
                tokio::select! {
                    read = follower.read(&mut take) => read?,
                    () = &mut stop => return Err(Interrupted.into()),
                }
                printed?;
                if !self.follow {
                    return Ok(());
                }
                tokio::select! {
                    () = tokio::time::sleep(POLL) => {}
                    () = &mut stop => return Ok(()),
                }
            }
        })
    }

    fn line(&self, event: &LogEvent) -> String {
        if self.json {
            let (at_ms, stream, message) = (event.at_ms, &event.stream, &event.message);
            return format!(
                "{}\n",
                json!({ "at_ms": at_ms, "stream": stream, "message": message })
            );
        }
        let tail: Vec<char> = event.stream.chars().rev().take(6).collect();
        let tail: String = tail.into_iter().rev().collect();
        format!("{tail}  {}\n", event.message)
    }
}
