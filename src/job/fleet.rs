//! What one job runs on: functions on AWS or a local Lambda, and the switch that was named or one in this process.

use crate::aws::{AwsError, AwsSettings};
use crate::job::driver::SwitchAccess;
use crate::lambda::launch::{Launcher, Share, Way};
use crate::lambda::local::{Admission, LocalError, LocalFunction, LocalLambda, LocalOptions};
use crate::net::server;
use crate::net::token::Secret;
use std::io;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Where the workers of a job run.
#[derive(Debug)]
pub enum Place {
    /// Functions on AWS, or wherever the SDK's own settings point.
    Aws {
        /// How AWS is reached.
        settings: AwsSettings,
        /// Which function runs which ranks.
        shares: Vec<Share>,
        /// What calls are for.
        way: Way,
    },
    /// A local Lambda.
    Local {
        /// The functions that it serves.
        functions: Vec<LocalFunction>,
        /// Which function runs which ranks.
        shares: Vec<Share>,
        /// Function instances at once.
        concurrency: usize,
    },
}

/// Why a fleet cannot be started.
#[derive(Debug, Error)]
pub enum FleetError {
    /// The switch of this process has no port.
    #[error("cannot listen on loopback for the switch: {0}")]
    Switch(#[source] io::Error),
    /// The local Lambda.
    #[error("cannot start the local Lambda: {0}")]
    Local(#[from] LocalError),
    /// AWS's settings.
    #[error(transparent)]
    Settings(#[from] AwsError),
}

/// What is started for one job and ended with it.
pub struct Fleet {
    /// Starts the workers.
    pub launcher: Launcher,
    /// The job's switches.
    pub switch: SwitchAccess,
    local: Option<LocalLambda>,
    own_switch: OwnSwitch,
}

/// A switch in this process, if there is one.
#[derive(Default)]
pub struct OwnSwitch(Option<(oneshot::Sender<()>, JoinHandle<()>)>);

impl OwnSwitch {
    /// Ends it.
    pub async fn stop(self) {
        if let Some((stop, serving)) = self.0 {
            let _ = stop.send(());
            let _ = serving.await;
        }
    }
}

/// Starts a switch in this process, on loopback, in a thread of its own.
///
/// # Errors
/// When there is no port for it.
pub async fn start_switch() -> Result<(SwitchAccess, OwnSwitch), FleetError> {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .map_err(FleetError::Switch)?;
    let address = listener.local_addr().map_err(FleetError::Switch)?;
    let access = SwitchAccess {
        addresses: vec![address.into()],
        secret: Secret::random(),
    };
    let (stop, stopped) = oneshot::channel();
    let secret = access.secret.clone();
    let serving = tokio::spawn(server::run(
        listener,
        secret,
        server::Limits::default(),
        async {
            let _ = stopped.await;
        },
    ));
    Ok((access, OwnSwitch(Some((stop, serving)))))
}

impl Fleet {
    /// Starts what `place` says. A local Lambda's processes end with the thread that runs this runtime.
    ///
    /// # Errors
    /// When the local Lambda cannot be started.
    pub async fn start(
        (switch, own_switch): (SwitchAccess, OwnSwitch),
        place: Place,
    ) -> Result<Fleet, FleetError> {
        let (launcher, local) = match place {
            Place::Aws {
                settings,
                shares,
                way,
            } => {
                let config = settings.load().await?;
                (Launcher::on_aws(&config, shares, way), None)
            }
            Place::Local {
                functions,
                shares,
                concurrency,
            } => {
                let listen = "127.0.0.1:0".parse().expect("this is an address");
                let options = LocalOptions {
                    listen,
                    functions,
                    concurrency,
                    scaling: None,
                    admission: Admission::default(),
                    log_sink: None,
                };
                let local = LocalLambda::start(options).await?;
                let launcher = Launcher::local(&local.endpoint(), local.keys(), shares);
                (launcher, Some(local))
            }
        };
        Ok(Fleet {
            launcher,
            switch,
            local,
            own_switch,
        })
    }

    /// Ends what was started.
    pub async fn stop(self) {
        self.own_switch.stop().await;
        if let Some(local) = self.local {
            local.stop().await;
        }
    }
}
