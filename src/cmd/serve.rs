//! `lswitch serve`: the switch on its own.

use crate::cmd::settings::parse_size;
use crate::cmd::settings::{find_secret, make_secret};
use crate::cmd::ui::{Ui, print_json};
use crate::cmd::{UsageError, block_on, interrupted, raise_descriptor_limit};
use crate::net::server;
use anyhow::{anyhow, bail};
use serde_json::json;
use std::io;
use tokio::net::TcpListener;

/// Run the switch that functions connect to
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch serve                               a switch for this machine, at 127.0.0.1:7000
  LSWITCH_SECRET_FILE=key lswitch serve --listen 0.0.0.0:7000 --insecure-plaintext

The secret that drivers must share is LSWITCH_SECRET, or in the file LSWITCH_SECRET_FILE names, or in
$LSWITCH_HOME/secret (~/.lswitch/secret), which a switch on loopback makes if it is missing.")]
pub struct Serve {
    /// Address to listen at; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7000")]
    listen: String,

    /// Listen off loopback although the wire is not encrypted yet
    #[arg(long)]
    insecure_plaintext: bool,

    /// Memory for what is under way, as 256MiB or 1GiB; senders wait when it is used up
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = memory)]
    memory: usize,

    /// Print the address as JSON on stdout once it is bound
    #[arg(long)]
    json: bool,
}

impl Serve {
    /// Runs until Ctrl-C or SIGTERM.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<()> {
        raise_descriptor_limit();
        block_on(async {
            let listener = match TcpListener::bind(&self.listen).await {
                Ok(listener) => listener,
                Err(error) => return Err(cannot_listen(&self.listen, error)),
            };
            let address = listener.local_addr()?;
            let loopback = address.ip().is_loopback();
            if !loopback && !self.insecure_plaintext {
                bail!(
                    "{address} is off loopback and the wire is not encrypted yet; give --insecure-plaintext if the network is your own"
                );
            }
            let secret = match find_secret()? {
                Some(secret) => secret,
                None if loopback => {
                    let (secret, path) = make_secret()?;
                    ui.say(format!("made a secret in {}", path.display()));
                    secret
                }
                None => bail!(
                    "a switch off loopback needs a secret: set LSWITCH_SECRET_FILE to a file with one (chmod 600), the same on the driver's side"
                ),
            };
            let stop = interrupted();
            if self.json {
                print_json(&json!({ "listening": address.to_string() }))?;
            }
            ui.say(format!(
                "lswitch {} listens at {address}; Ctrl-C ends it",
                crate::RELEASE
            ));
            let limits = server::Limits {
                memory: self.memory,
            };
            server::run(listener, secret, limits, stop).await;
            ui.say("the switch is down");
            Ok(())
        })
    }
}

/// A size of memory that a switch can work with.
fn memory(text: &str) -> Result<usize, String> {
    let bytes = parse_size(text)?;
    if bytes < server::MEMORY_MIN {
        let least = server::MEMORY_MIN >> 20;
        return Err(format!("a switch needs at least {least}MiB"));
    }
    Ok(bytes)
}

fn cannot_listen(address: &str, error: io::Error) -> anyhow::Error {
    let what = format!("cannot listen at {address}: {error}");
    match error.kind() {
        io::ErrorKind::AddrInUse => anyhow!(
            "{what}; another program has the port, or another switch: try --listen 127.0.0.1:0"
        ),
        io::ErrorKind::InvalidInput => {
            UsageError(format!("{what}; an address is HOST:PORT")).into()
        }
        _ => anyhow!("{what}; is it an address of this machine?"),
    }
}
