//! The thread on which a pool's local Lambda, switch and store are started. It lives as long as they do: a local Lambda's processes
//! end with the thread that started them, and callers' threads come and go.

use super::{PoolBuilder, PoolError};
use crate::job::driver::{SWITCHES_MAX, SwitchAccess};
use crate::job::fleet::{Fleet, FleetError, OwnSwitch, Place, start_switch};
use crate::job::settings::{asks_for_plaintext, find_secret, variable};
use crate::lambda::launch::{Launcher, Share, Way};
use crate::lambda::local::{DEFAULT_FUNCTION, function_of, own_function};
use crate::net::address::{AddressError, SwitchAddress};
use crate::net::token::Secret;
use crate::store::Store;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

/// Environments of the local Lambda beyond the workers: of those that end while others start in their place.
const SPARE: usize = 2;

/// See the module.
pub(super) struct Host {
    pub(super) launcher: Launcher,
    pub(super) switch: SwitchAccess,
    /// The store, absolute.
    pub(super) store: String,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Host {
    /// Starts what is asked for.
    pub(super) fn start(asked: &PoolBuilder, workers: u32) -> Result<Host, PoolError> {
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let asked = asked.clone();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let run = move |runtime: &Runtime| {
            runtime.block_on(async {
                let started = async {
                    let store = open_store(&asked).await?;
                    Ok((start(&asked, workers).await?, store))
                };
                match started.await {
                    Err(error) => drop(ready.send(Err(error))),
                    Ok((fleet, store)) => {
                        let told = (fleet.launcher.clone(), fleet.switch.clone(), store);
                        let _ = ready.send(Ok(told));
                        let _ = stopped.await;
                        fleet.stop().await;
                    }
                }
            });
        };
        let thread = thread::Builder::new()
            .name("lswitch host".into())
            .spawn(move || {
                run(&runtime);
                runtime.shutdown_timeout(Duration::from_millis(500));
            })?;
        let told = is_ready
            .recv()
            .unwrap_or_else(|_| Err(PoolError::Usage("the pool's host panicked".into())));
        let (launcher, switch, store) = told?;
        Ok(Host {
            launcher,
            switch,
            store,
            stop,
            thread,
        })
    }

    /// Ends it, and waits for that.
    pub(super) fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

async fn open_store(asked: &PoolBuilder) -> Result<String, PoolError> {
    let store = Store::open(&asked.store, &asked.aws).await?;
    // An endpoint of the user's own may be this machine.
    let own_endpoint = ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_LAMBDA"]
        .iter()
        .any(|name| variable(name).is_some());
    if asked.function.is_some() && !own_endpoint && !store.url().starts_with("s3://") {
        let what = format!(
            "the pool's store is {}, which a function on AWS cannot see; give it s3://bucket/prefix",
            store.url()
        );
        return Err(PoolError::Usage(what));
    }
    Ok(store.url().to_string())
}

async fn start(asked: &PoolBuilder, workers: u32) -> Result<Fleet, PoolError> {
    let switch = switch(asked).await?;
    let place = match &asked.function {
        Some(function) => Place::Aws {
            settings: asked.aws.clone(),
            shares: Share::all(function),
            way: Way::Start,
        },
        None => {
            let own = match &asked.program {
                Some(program) => function_of(program, &asked.aws).await,
                None => own_function(&asked.aws).await,
            };
            Place::Local {
                functions: vec![own.map_err(FleetError::from)?],
                shares: Share::all(DEFAULT_FUNCTION),
                concurrency: workers as usize + SPARE,
            }
        }
    };
    Ok(Fleet::start(switch, place).await?)
}

/// The switch that was named, or one in this process.
async fn switch(asked: &PoolBuilder) -> Result<(SwitchAccess, OwnSwitch), PoolError> {
    let usage = |what: &str| Err(PoolError::Usage(what.into()));
    let addresses = asked.switches.iter().map(|address| address.parse());
    let addresses: Vec<SwitchAddress> = addresses
        .collect::<Result<_, AddressError>>()
        .map_err(|error| PoolError::Usage(error.to_string()))?;
    if let Some(exposed) = addresses.iter().find(|address| address.is_exposed())
        && !asked.plaintext
        && !asks_for_plaintext()
    {
        let what = format!(
            "the switch's address {exposed} names no certificate: give the one that \"lswitch serve\" prints, or ask for plain TCP with plaintext()"
        );
        return usage(&what);
    }
    if addresses.len() > SWITCHES_MAX {
        let what = format!("a pool has at most {SWITCHES_MAX} switches");
        return usage(&what);
    }
    if addresses.is_empty() {
        return match asked.function {
            Some(_) => usage(
                "a function on AWS cannot reach a switch in this process; run \"lswitch serve\" where it can, and give the pool that switch",
            ),
            None => Ok(start_switch().await?),
        };
    }
    let found = match &asked.secret {
        Some(secret) => Some(Secret::new(secret).map_err(|error| {
            PoolError::Usage(format!("the secret that the pool was given: {error}"))
        })?),
        None => find_secret()?,
    };
    match found {
        Some(secret) => Ok((SwitchAccess { addresses, secret }, OwnSwitch::default())),
        None => usage(
            "the switch's secret is not to be found: set LSWITCH_SECRET_FILE to the file that \"lswitch serve\" uses",
        ),
    }
}
