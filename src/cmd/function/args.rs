//! What a function is to be, as the command line says it.

use super::refused;
use crate::cmd::UsageError;
use crate::cmd::ui::{self, Ui};
use crate::lambda::function::account::Account;
use crate::lambda::function::manage::Place;
use crate::lambda::function::package::{Contents, DIRECT_MAX, Package, package};
use crate::lambda::function::policy::Scope;
use crate::lambda::function::{Architecture, Runtime, Settings, Vpc};
use crate::store::Store;
use anyhow::Context;
use std::path::PathBuf;

/// The code of a function.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Code")]
pub struct PackageArgs {
    /// Program that becomes the function's bootstrap; this one if not given
    #[arg(long, value_name = "FILE")]
    bootstrap: Option<PathBuf>,

    /// Add a file or a folder to the package, under its own name; FOLDER/ adds what is in it
    #[arg(long, value_name = "PATH")]
    include: Vec<PathBuf>,

    /// provided.al2023, provided.al2 or python3.x
    #[arg(long)]
    runtime: Option<Runtime>,

    /// What AWS's Python calls
    #[arg(long, value_name = "MODULE.FUNCTION")]
    handler: Option<String>,

    /// Packages of Python that pip adds
    #[arg(long, value_name = "FILE")]
    requirements: Option<PathBuf>,

    /// x86_64 or arm64; that of the bootstrap if not given
    #[arg(long, value_name = "NAME")]
    architecture: Option<Architecture>,
}

impl PackageArgs {
    /// True if anything is said of the code.
    pub fn are_given(&self) -> bool {
        self.bootstrap.is_some()
            || !self.include.is_empty()
            || self.requirements.is_some()
            || self.handler.is_some()
            || self.architecture.is_some()
    }

    /// True if the machine was named.
    pub fn names_architecture(&self) -> bool {
        self.architecture.is_some()
    }

    /// Makes the package, of this program unless another one is named.
    pub fn package(&self) -> anyhow::Result<Package> {
        let bootstrap = match &self.bootstrap {
            Some(path) => path.clone(),
            None => std::env::current_exe().context("cannot find this program itself")?,
        };
        let runtime = self.runtime.clone().unwrap_or(Runtime::ProvidedAl2023);
        if runtime.glibc().is_some() && self.handler.is_some() {
            let what = "--handler is for functions in Python; say --runtime python3.x";
            return Err(UsageError(what.into()).into());
        }
        if runtime.glibc().is_none() && self.bootstrap.is_some() {
            let what = format!("{runtime} has no bootstrap; --include adds files to the package");
            return Err(UsageError(what).into());
        }
        let contents = Contents {
            runtime,
            bootstrap,
            is_own: self.bootstrap.is_none(),
            handler: self.handler.clone(),
            requirements: self.requirements.clone(),
            include: self.include.clone(),
            architecture: self.architecture,
        };
        package(&contents).map_err(refused)
    }
}

/// The settings of a function.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Settings")]
pub struct SettingArgs {
    /// Memory, 128 to 10240; processors come with it, one for each 1769 [default: 1769]
    #[arg(long, value_name = "MB")]
    memory: Option<u32>,

    /// How long one worker may run, 1 to 900 [default: 900]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u32>,

    /// What /tmp holds, 512 to 10240 [default: 512]
    #[arg(long, value_name = "MB")]
    storage: Option<u32>,

    /// A layer with its version
    #[arg(long, value_name = "ARN")]
    layer: Vec<String>,

    /// Set a variable
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,

    /// Subnet of your network to be in
    #[arg(long, value_name = "ID")]
    subnet: Vec<String>,

    /// Security group to be in
    #[arg(long, value_name = "ID")]
    security_group: Vec<String>,

    /// Environments that are kept for this function, which it never exceeds
    #[arg(long, value_name = "N")]
    reserved_concurrency: Option<u32>,

    /// Set a tag
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    tag: Vec<(String, String)>,

    /// The function's role
    #[arg(long, value_name = "ARN", conflicts_with = "create_role")]
    role: Option<String>,

    /// Make a role that may do what a worker needs and nothing more: log, and use the store that --store names
    #[arg(long)]
    create_role: bool,

    /// The role may invoke the function itself, as "invoke map --levels" needs it
    #[arg(long, requires = "create_role")]
    may_invoke_itself: bool,

    /// The store that jobs will use; packages above 50 MB lie there too
    #[arg(long, value_name = "s3://BUCKET/PREFIX", env = "LSWITCH_STORE")]
    store: Option<String>,
}

impl SettingArgs {
    /// What they say, within AWS's limits.
    pub fn settings(&self, package: &PackageArgs) -> Result<Settings, UsageError> {
        let named = |ids: &[String]| !ids.is_empty();
        let vpc = Vpc {
            subnets: self.subnet.iter().cloned().collect(),
            security_groups: self.security_group.iter().cloned().collect(),
        };
        let settings = Settings {
            runtime: package.runtime.clone(),
            handler: package.handler.clone(),
            memory_mb: self.memory,
            timeout_s: self.timeout,
            storage_mb: self.storage,
            layers: Some(self.layer.clone()).filter(|layers| named(layers)),
            environment: self.env.iter().cloned().collect(),
            vpc: Some(vpc).filter(|_| named(&self.subnet) || named(&self.security_group)),
            reserved_concurrency: self.reserved_concurrency,
            tags: self.tag.iter().cloned().collect(),
            role: self.role.clone(),
            ..Settings::default()
        };
        match settings.check() {
            Ok(()) => Ok(settings),
            Err(error) => Err(UsageError(error.to_string())),
        }
    }

    /// True if a role is to be made, or given its policy anew.
    pub fn creates_role(&self) -> bool {
        self.create_role
    }

    /// The store that was named, which must be in S3.
    pub async fn store(&self, config: &aws_config::SdkConfig) -> anyhow::Result<Option<Store>> {
        // The laptop's own store is of no use to a function.
        let named = self.store.as_deref().filter(|store| !store.is_empty());
        let Some(location) = named else {
            return Ok(None);
        };
        let store = Store::open_with(location, config).await?;
        if store.bucket().is_none() {
            let named = std::env::var("LSWITCH_STORE").is_ok_and(|variable| variable == location);
            if named && !self.create_role {
                // That of jobs on this machine; a function has no use for it.
                return Ok(None);
            }
            let what = format!(
                "--store {location}: functions on AWS reach a store in S3 alone, s3://BUCKET/PREFIX"
            );
            return Err(UsageError(what).into());
        }
        Ok(Some(store))
    }

    /// What the role of a function may do.
    pub fn scope(&self, name: &str, account: Account, store: Option<&Store>, vpc: bool) -> Scope {
        Scope {
            partition: account.partition,
            region: account.region,
            account: account.account,
            functions: vec![name.into()],
            store: store
                .and_then(Store::bucket)
                .map(|(bucket, prefix)| (bucket.into(), prefix.into())),
            vpc,
            tree: self.may_invoke_itself,
        }
    }
}

/// Puts a package where Lambda finds it: with the call, or in the store if it is long.
pub async fn place(ui: &Ui, package: &Package, store: Option<&Store>) -> anyhow::Result<Place> {
    let length = package.zip.len();
    if length <= DIRECT_MAX {
        return Ok(Place::Direct);
    }
    let long = format!(
        "the package has {}, and Lambda takes {} with a call",
        ui::bytes(length as u64),
        ui::bytes(DIRECT_MAX as u64)
    );
    let Some((store, (bucket, prefix))) = store.and_then(|store| Some((store, store.bucket()?)))
    else {
        let what = format!(
            "{long}; \"make lambda-zip\" builds a small bootstrap, or give --store s3://BUCKET/PREFIX to keep it there"
        );
        return Err(UsageError(what).into());
    };
    let name: String = package
        .sha256
        .chars()
        .map(|letter| {
            if letter.is_ascii_alphanumeric() {
                letter
            } else {
                '-'
            }
        })
        .collect();
    let key = format!("packages/{name}.zip");
    ui.say(format!("{long}: it goes to {}", store.object_url(&key)));
    store.put(&key, package.zip.clone().into()).await?;
    let key = match prefix {
        "" => key,
        _ => format!("{prefix}/{key}"),
    };
    let bucket = bucket.to_string();
    Ok(Place::S3 { bucket, key })
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("this is NAME=VALUE")?;
    Ok((name.into(), value.into()))
}
