//! Lambda's control plane: what functions there are, making and changing them, taking them away.

use super::package::Package;
use super::{Architecture, Change, Deployed, PACKAGE_TAG, Settings, TAG, Vpc};
use crate::aws::error_chain;
use aws_config::SdkConfig;
use aws_sdk_lambda::Client;
use aws_sdk_lambda::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{
    Architecture as AwsArchitecture, Environment, EphemeralStorage, FunctionCode,
    FunctionConfiguration, LastUpdateStatus, Runtime as AwsRuntime, State, VpcConfig,
};
use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::time::{Duration, Instant};
use thiserror::Error;

/// Memory of a function for which nobody says it: one whole processor.
pub const MEMORY_MB: u32 = 1769;

/// Time-out of a function for which nobody says it: Lambda's longest.
pub const TIMEOUT_S: u32 = 900;

/// What functions say of themselves in lists.
const DESCRIPTION: &str = "Made by lswitch";

/// How long Lambda keeps an asynchronous invocation that it cannot start: lswitch asks again itself.
const EVENT_AGE_S: i32 = 60;

/// How long a role that was just made may be unknown to Lambda.
const ROLE_WITHIN: Duration = Duration::from_secs(60);

/// How long Lambda may take to make a function ready; network interfaces take a minute and more.
const READY_WITHIN: Duration = Duration::from_secs(300);

/// How often it is asked.
const POLL: Duration = Duration::from_secs(1);

/// Calls for tags at once.
const TAGS_AT_ONCE: usize = 10;

/// Why a function is not as it was to be.
#[derive(Debug, Error)]
pub enum ManageError {
    /// A call failed.
    #[error("cannot {action} {name}: {reason}")]
    Call {
        /// What was to be done.
        action: &'static str,
        /// With what.
        name: String,
        /// What AWS says.
        reason: String,
    },
    /// There is none.
    #[error(
        "there is no function {0} here; \"lswitch function list\" shows those that lswitch has made"
    )]
    Missing(String),
    /// The name is taken.
    #[error("there is a function {0} already; \"lswitch function update {0}\" changes it")]
    Exists(String),
    /// It is not lswitch's.
    #[error(
        "function {0} was not made by lswitch (it has no tag \"lswitch\"), so it is left alone"
    )]
    Foreign(String),
    /// It has no role.
    #[error(
        "--role: a new function needs a role; --create-role makes one, or name it with --role ARN"
    )]
    NoRole,
    /// It does not become ready.
    #[error("function {name} is not ready: {reason}")]
    Unready {
        /// Its name.
        name: String,
        /// What Lambda says.
        reason: String,
    },
}

/// Where a package is.
#[derive(Debug, Clone)]
pub enum Place {
    /// It goes with the call.
    Direct,
    /// It lies in S3.
    S3 {
        /// The bucket.
        bucket: String,
        /// The object's key.
        key: String,
    },
}

/// Speaks with Lambda about functions.
#[derive(Debug, Clone)]
pub struct Manager {
    client: Client,
}

/// An error of a call, in the terms of what was to be done.
pub(super) fn failed<E, R>(
    action: &'static str,
    name: &str,
) -> impl FnOnce(SdkError<E, R>) -> ManageError
where
    SdkError<E, R>: Error,
{
    move |error| ManageError::Call {
        action,
        name: name.into(),
        reason: error_chain(&error),
    }
}

impl Manager {
    /// Speaks with the Lambda that `config` leads to.
    pub fn new(config: &SdkConfig) -> Manager {
        Manager {
            client: Client::new(config),
        }
    }

    /// The function of that name, if there is one.
    ///
    /// # Errors
    /// When Lambda does not answer, or refuses.
    pub async fn find(&self, name: &str) -> Result<Option<Deployed>, ManageError> {
        let found = self.client.get_function().function_name(name).send().await;
        let found = match found {
            Ok(found) => found,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(failed("look at function", name)(error)),
        };
        let Some(configuration) = found.configuration() else {
            return Ok(None);
        };
        let mut deployed = deployed(configuration);
        deployed.tags = sorted(found.tags());
        deployed.reserved_concurrency = found
            .concurrency()
            .and_then(|concurrency| concurrency.reserved_concurrent_executions())
            .map(|count| count as u32);
        let events = self.client.get_function_event_invoke_config();
        deployed.async_retries = match events.function_name(name).send().await {
            Ok(events) => events.maximum_retry_attempts().map(|count| count as u32),
            Err(error) if is_missing(&error) => None,
            Err(error) => return Err(failed("look at the event settings of", name)(error)),
        };
        Ok(Some(deployed))
    }

    /// The function of that name, which lswitch has made.
    ///
    /// # Errors
    /// When there is none, or it is somebody else's.
    pub async fn find_own(&self, name: &str) -> Result<Deployed, ManageError> {
        let found = self.find(name).await?;
        let found = found.ok_or_else(|| ManageError::Missing(name.into()))?;
        match found.tags.contains_key(TAG) {
            true => Ok(found),
            false => Err(ManageError::Foreign(name.into())),
        }
    }

    /// The functions that lswitch has made, by name.
    ///
    /// # Errors
    /// When Lambda does not answer, or refuses.
    pub async fn list(&self) -> Result<Vec<Deployed>, ManageError> {
        let mut pages = self.client.list_functions().into_paginator().send();
        let mut own = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(failed("list", "functions"))?;
            for functions in page.functions().chunks(TAGS_AT_ONCE) {
                let mut asked = tokio::task::JoinSet::new();
                // A list tells no tags, and those of others' functions may not be read.
                let made = functions
                    .iter()
                    .filter(|function| function.description() == Some(DESCRIPTION));
                for function in made {
                    let mut function = deployed(function);
                    let client = self.client.clone();
                    asked.spawn(async move {
                        let tags = client.list_tags().resource(&function.arn).send().await;
                        let tags = match tags {
                            Ok(tags) => tags,
                            // It went away since it was listed.
                            Err(error) if is_missing(&error) || is_denied(&error) => {
                                return Ok(None);
                            }
                            Err(error) => {
                                return Err(failed("read the tags of", &function.name)(error));
                            }
                        };
                        function.tags = sorted(tags.tags());
                        Ok(Some(function).filter(|function| function.tags.contains_key(TAG)))
                    });
                }
                while let Some(function) = asked.join_next().await {
                    own.extend(function.expect("no call panics")?);
                }
            }
        }
        own.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(own)
    }

    /// Makes a function, and waits until it can be invoked.
    ///
    /// # Errors
    /// When the name is taken, Lambda refuses, or it does not become ready in time.
    pub async fn create(
        &self,
        name: &str,
        settings: &Settings,
        package: &Package,
        place: &Place,
    ) -> Result<Deployed, ManageError> {
        let role = settings.role.as_deref().ok_or(ManageError::NoRole)?;
        let runtime = settings
            .runtime
            .as_ref()
            .map_or("provided.al2023".into(), ToString::to_string);
        let storage = EphemeralStorage::builder().size(settings.storage_mb.unwrap_or(512) as i32);
        let mut tags: HashMap<String, String> = settings.tags.clone().into_iter().collect();
        tags.extend(own_tags(package));
        let create = self
            .client
            .create_function()
            .function_name(name)
            .description(DESCRIPTION)
            .runtime(AwsRuntime::from(runtime.as_str()))
            .handler(settings.handler.as_deref().unwrap_or("bootstrap"))
            .role(role)
            .architectures(architecture(package.architecture))
            .memory_size(settings.memory_mb.unwrap_or(MEMORY_MB) as i32)
            .timeout(settings.timeout_s.unwrap_or(TIMEOUT_S) as i32)
            .set_ephemeral_storage(storage.build().ok())
            .set_layers(settings.layers.clone())
            .environment(environment(&settings.environment_of(&BTreeMap::new())))
            .set_vpc_config(settings.vpc.as_ref().map(network))
            .set_tags(Some(tags));
        let code = FunctionCode::builder();
        let create = create.code(match place {
            Place::Direct => code.zip_file(Blob::new(package.zip.clone())).build(),
            Place::S3 { bucket, key } => code.s3_bucket(bucket).s3_key(key).build(),
        });
        let begun = Instant::now();
        loop {
            let Err(error) = create.clone().send().await else {
                break;
            };
            let what = error.message().unwrap_or_default();
            match error.code() {
                Some("ResourceConflictException") => {
                    return Err(ManageError::Exists(name.into()));
                }
                Some("InvalidParameterValueException")
                    if is_of_new_role(what) && begun.elapsed() < ROLE_WITHIN =>
                {
                    tokio::time::sleep(POLL).await;
                }
                _ => return Err(failed("create function", name)(error)),
            }
        }
        // While it is being set up, Lambda may refuse to change it.
        self.wait_ready(name).await?;
        self.set_events(name).await?;
        if let Some(count) = settings.reserved_concurrency {
            self.reserve(name, count).await?;
        }
        self.find_own(name).await
    }

    /// Changes what differs: the settings among `changes`, and the code if `package` has another hash. Says what was changed.
    ///
    /// # Errors
    /// When Lambda refuses, or the function does not become ready in time. What was changed before stays.
    pub async fn update(
        &self,
        deployed: &Deployed,
        settings: &Settings,
        package: Option<(&Package, &Place)>,
    ) -> Result<Vec<Change>, ManageError> {
        let name = &deployed.name;
        let mut changes = settings.changes(deployed);
        let has = |setting: &str| changes.iter().any(|change| change.setting == setting);
        let configured = [
            "runtime",
            "handler",
            "memory",
            "timeout",
            "storage",
            "layers",
            "environment",
            "network",
            "role",
        ];
        if configured.iter().any(|setting| has(setting)) {
            let mut update = self
                .client
                .update_function_configuration()
                .function_name(name);
            if let Some(runtime) = settings.runtime.as_ref().filter(|_| has("runtime")) {
                update = update.runtime(AwsRuntime::from(runtime.to_string().as_str()));
            }
            if let Some(storage) = settings.storage_mb.filter(|_| has("storage")) {
                let storage = EphemeralStorage::builder().size(storage as i32);
                update = update.set_ephemeral_storage(storage.build().ok());
            }
            if has("environment") {
                let wanted = settings.environment_of(&deployed.environment);
                update = update.environment(environment(&wanted));
            }
            let number = |value: Option<u32>| value.map(|value| value as i32);
            update = update
                .set_handler(settings.handler.clone().filter(|_| has("handler")))
                .set_memory_size(number(settings.memory_mb).filter(|_| has("memory")))
                .set_timeout(number(settings.timeout_s).filter(|_| has("timeout")))
                .set_layers(settings.layers.clone().filter(|_| has("layers")))
                .set_vpc_config(
                    settings
                        .vpc
                        .as_ref()
                        .filter(|_| has("network"))
                        .map(network),
                )
                .set_role(settings.role.clone().filter(|_| has("role")));
            let begun = Instant::now();
            loop {
                match update.clone().send().await {
                    Ok(_) => break,
                    Err(error)
                        if is_of_new_role(error.message().unwrap_or_default())
                            && error.code() == Some("InvalidParameterValueException")
                            && begun.elapsed() < ROLE_WITHIN =>
                    {
                        tokio::time::sleep(POLL).await;
                    }
                    Err(error) => return Err(failed("configure function", name)(error)),
                }
            }
            self.wait_ready(name).await?;
        }
        if let Some(count) = settings
            .reserved_concurrency
            .filter(|_| has("reserved concurrency"))
        {
            self.reserve(name, count).await?;
        }
        if has("asynchronous retries") {
            self.set_events(name).await?;
        }
        let mut tags = settings.tags.clone();
        if let Some((package, place)) = package {
            if package.sha256 != deployed.code_sha256 {
                self.upload(name, package, place).await?;
                changes.push(Change {
                    setting: "code",
                    from: deployed.code_sha256.clone(),
                    to: package.sha256.clone(),
                });
            }
            tags.extend(own_tags(package));
        }
        tags.retain(|key, value| deployed.tags.get(key) != Some(value));
        if !tags.is_empty() {
            let tag = self.client.tag_resource().resource(&deployed.arn);
            let tag = tag.set_tags(Some(tags.into_iter().collect())).send().await;
            tag.map_err(failed("tag function", name))?;
        }
        Ok(changes)
    }

    async fn upload(
        &self,
        name: &str,
        package: &Package,
        place: &Place,
    ) -> Result<(), ManageError> {
        let update = self.client.update_function_code().function_name(name);
        let update = update.architectures(architecture(package.architecture));
        let update = match place {
            Place::Direct => update.zip_file(Blob::new(package.zip.clone())),
            Place::S3 { bucket, key } => update.s3_bucket(bucket).s3_key(key),
        };
        update
            .send()
            .await
            .map_err(failed("upload the code of", name))?;
        self.wait_ready(name).await
    }

    /// Takes a function away, which must be lswitch's own.
    ///
    /// # Errors
    /// When it is not, or Lambda refuses.
    pub async fn delete(&self, deployed: &Deployed) -> Result<(), ManageError> {
        let name = &deployed.name;
        if !deployed.tags.contains_key(TAG) {
            return Err(ManageError::Foreign(name.clone()));
        }
        match self
            .client
            .delete_function()
            .function_name(name)
            .send()
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(failed("delete function", name)(error)),
        }
    }

    /// How many environments the account may have at once, and how many of them are kept for no function.
    ///
    /// # Errors
    /// When Lambda does not answer, or refuses.
    pub async fn concurrency(&self) -> Result<(u32, u32), ManageError> {
        let settings = self.client.get_account_settings().send().await;
        let settings = settings.map_err(failed("read", "the account's limits"))?;
        let limit = settings.account_limit();
        let all = limit.map_or(0, |limit| limit.concurrent_executions());
        let free = limit.and_then(|limit| limit.unreserved_concurrent_executions());
        Ok((all as u32, free.unwrap_or(all) as u32))
    }

    /// Lambda is not to repeat what lswitch repeats itself.
    async fn set_events(&self, name: &str) -> Result<(), ManageError> {
        let events = self.client.put_function_event_invoke_config();
        let events = events
            .function_name(name)
            .maximum_retry_attempts(0)
            .maximum_event_age_in_seconds(EVENT_AGE_S);
        let set = events.send().await;
        set.map(drop)
            .map_err(failed("set the event settings of", name))
    }

    async fn reserve(&self, name: &str, count: u32) -> Result<(), ManageError> {
        let reserve = self.client.put_function_concurrency().function_name(name);
        let reserved = reserve
            .reserved_concurrent_executions(count as i32)
            .send()
            .await;
        reserved
            .map(drop)
            .map_err(failed("reserve concurrency for", name))
    }

    /// Waits until a function can be invoked and changed again.
    async fn wait_ready(&self, name: &str) -> Result<(), ManageError> {
        let begun = Instant::now();
        loop {
            let ask = self.client.get_function_configuration().function_name(name);
            let found = ask.send().await.map_err(failed("look at function", name))?;
            let reason = |words: Option<&str>| ManageError::Unready {
                name: name.into(),
                reason: words.unwrap_or("Lambda does not say why").into(),
            };
            match (found.state(), found.last_update_status()) {
                (Some(State::Failed), _) => return Err(reason(found.state_reason())),
                (_, Some(LastUpdateStatus::Failed)) => {
                    return Err(reason(found.last_update_status_reason()));
                }
                (Some(State::Pending), _) | (_, Some(LastUpdateStatus::InProgress)) => {}
                _ => return Ok(()),
            }
            if begun.elapsed() > READY_WITHIN {
                let seconds = READY_WITHIN.as_secs();
                let words = format!("it is still being set up after {seconds} s");
                return Err(reason(Some(&words)));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

fn is_missing<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    error.code() == Some("ResourceNotFoundException")
}

fn is_denied<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    error.code() == Some("AccessDeniedException")
}

/// True if Lambda complains of a role, or of what it may do, that is known everywhere only after some seconds.
fn is_of_new_role(what: &str) -> bool {
    ["assume", "execution role", "KMS"]
        .iter()
        .any(|words| what.contains(words))
}

fn own_tags(package: &Package) -> [(String, String); 2] {
    [
        (TAG.into(), env!("CARGO_PKG_VERSION").into()),
        (PACKAGE_TAG.into(), package.kind.into()),
    ]
}

fn architecture(architecture: Architecture) -> AwsArchitecture {
    AwsArchitecture::from(architecture.to_string().as_str())
}

fn environment(variables: &BTreeMap<String, String>) -> Environment {
    let variables = variables.clone().into_iter().collect();
    Environment::builder()
        .set_variables(Some(variables))
        .build()
}

fn network(vpc: &Vpc) -> VpcConfig {
    VpcConfig::builder()
        .set_subnet_ids(Some(vpc.subnets.iter().cloned().collect()))
        .set_security_group_ids(Some(vpc.security_groups.iter().cloned().collect()))
        .build()
}

fn sorted(tags: Option<&HashMap<String, String>>) -> BTreeMap<String, String> {
    tags.into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// What Lambda says of a function, without its tags and what other calls tell.
fn deployed(found: &FunctionConfiguration) -> Deployed {
    let text = |value: Option<&str>| value.unwrap_or_default().to_string();
    let architecture = found.architectures().first().map(|found| found.as_str());
    Deployed {
        name: text(found.function_name()),
        arn: text(found.function_arn()),
        runtime: text(found.runtime().map(AwsRuntime::as_str)),
        handler: text(found.handler()),
        architecture: text(Some(architecture.unwrap_or("x86_64"))),
        memory_mb: found.memory_size().unwrap_or_default() as u32,
        timeout_s: found.timeout().unwrap_or_default() as u32,
        storage_mb: found
            .ephemeral_storage()
            .map_or(512, |storage| storage.size() as u32),
        layers: found
            .layers()
            .iter()
            .filter_map(|layer| layer.arn().map(String::from))
            .collect(),
        environment: sorted(
            found
                .environment()
                .and_then(|environment| environment.variables()),
        ),
        vpc: found.vpc_config().map_or_else(Vpc::default, |vpc| Vpc {
            subnets: vpc.subnet_ids().iter().cloned().collect(),
            security_groups: vpc.security_group_ids().iter().cloned().collect(),
        }),
        reserved_concurrency: None,
        async_retries: None,
        tags: BTreeMap::new(),
        role: text(found.role()),
        code_sha256: text(found.code_sha256()),
        code_bytes: found.code_size() as u64,
        modified: text(found.last_modified()),
        state: text(found.state().map(State::as_str)),
    }
}
