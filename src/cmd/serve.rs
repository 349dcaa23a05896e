//! `lswitch serve`: the switch on its own.

mod user_data;

use crate::cmd::settings::parse_size;
use crate::cmd::settings::{find_secret, make_secret};
use crate::cmd::ui::{Ui, print_json};
use crate::cmd::{UsageError, block_on, certificate, interrupted, raise_descriptor_limit};
use crate::net::address::SwitchAddress;
use crate::net::server;
use crate::net::tls::Identity;
use anyhow::{anyhow, bail};
use serde_json::json;
use std::io;
use std::path::PathBuf;
use tokio::net::TcpListener;

/// Run the switch that functions connect to
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch serve                               a switch for this machine, at 127.0.0.1:7000
  LSWITCH_SECRET_FILE=key lswitch serve --listen 10.0.0.5:7000
  lswitch serve --print-user-data --store s3://bucket/jobs > switch.sh      for a new machine on AWS, see docs/AWS.md

Off loopback the switch speaks TLS, with a certificate that it makes once and keeps in $LSWITCH_HOME/switch.pem; the address that it
prints, for --switch, names the certificate, and nobody takes another.

The secret that drivers must share is LSWITCH_SECRET, or in the file LSWITCH_SECRET_FILE names, or in
$LSWITCH_HOME/secret (~/.lswitch/secret), which a switch on loopback makes if it is missing.")]
pub struct Serve {
    /// Address to listen at; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7000")]
    listen: String,

    /// Speak TLS on loopback too
    #[arg(long, conflicts_with = "plaintext")]
    tls: bool,

    /// A certificate of your own, in PEM, and those that vouch for it; it means --tls
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_key",
        conflicts_with = "plaintext"
    )]
    tls_cert: Option<PathBuf>,

    /// Its key, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Speak plain TCP off loopback too
    #[arg(long, alias = "insecure-plaintext")]
    plaintext: bool,

    /// Memory for what is under way, as 256MiB or 1GiB; senders wait when it is used up
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = memory)]
    memory: usize,

    /// Serve nothing here, but print what a new machine on AWS does to become a switch: a script for cloud-init
    #[arg(long, requires = "store", conflicts_with_all = ["tls_cert", "json"])]
    print_user_data: bool,

    /// The jobs' store in S3, from which that machine takes its executable
    #[arg(long, value_name = "s3://BUCKET/PREFIX", env = "LSWITCH_STORE")]
    store: Option<String>,

    /// Print the address as JSON on stdout once it is bound: where it listens, and what --switch takes
    #[arg(long)]
    json: bool,
}

impl Serve {
    /// Runs until Ctrl-C or SIGTERM.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<()> {
        if let (true, Some(store)) = (self.print_user_data, &self.store) {
            return user_data::print(self, store, ui);
        }
        raise_descriptor_limit();
        block_on(async {
            let listener = match TcpListener::bind(&self.listen).await {
                Ok(listener) => listener,
                Err(error) => return Err(cannot_listen(&self.listen, error)),
            };
            let address = listener.local_addr()?;
            let loopback = address.ip().is_loopback();
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
            let identity = self.identity(ui, loopback)?;
            let stop = interrupted();
            let pin = identity.as_ref().map(Identity::fingerprint);
            let switch = SwitchAddress::new(address, pin);
            if self.json {
                let (listening, switch) = (address.to_string(), switch.to_string());
                print_json(&json!({ "listening": listening, "switch": switch }))?;
            }
            ui.say(format!(
                "lswitch {} listens at {address}; Ctrl-C ends it",
                crate::RELEASE
            ));
            if pin.is_some() {
                let but = match address.ip().is_unspecified() {
                    true => ", with this machine's own name or address in place of the host",
                    false => "",
                };
                ui.say(format!("for drivers: --switch {switch}{but}"));
            }
            let limits = server::Limits {
                memory: self.memory,
            };
            server::run_as(identity, listener, secret, limits, stop).await;
            ui.say("the switch is down");
            Ok(())
        })
    }

    /// The certificate of a switch that speaks TLS.
    fn identity(&self, ui: &Ui, loopback: bool) -> anyhow::Result<Option<Identity>> {
        if let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) {
            return certificate::given(certificate, key).map(Some);
        }
        match self.tls || !loopback && !self.plaintext {
            true => certificate::own(ui).map(Some),
            false => Ok(None),
        }
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
