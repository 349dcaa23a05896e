//! The role of a function: what it may do in the account. `--create-role` makes one for each function, with the policy of a worker.

use super::TAG;
use super::manage::{ManageError, failed};
use super::policy::{Part, Scope, policy, role_name, trust};
use aws_config::SdkConfig;
use aws_sdk_iam::Client;
use aws_sdk_iam::error::ProvideErrorMetadata;
use aws_sdk_iam::types::Tag;

/// Name of the policy within the role.
const POLICY: &str = "lswitch";

/// Speaks with IAM.
#[derive(Debug, Clone)]
pub struct Roles {
    client: Client,
}

impl Roles {
    /// Speaks with the IAM that `config` leads to.
    pub fn new(config: &SdkConfig) -> Roles {
        Roles {
            client: Client::new(config),
        }
    }

    /// Makes the role of a function, or gives the one that is there the policy that it should have. The ARN of it.
    ///
    /// # Errors
    /// When IAM refuses, or there is a role of that name which lswitch has not made.
    pub async fn make(&self, function: &str, scope: &Scope) -> Result<String, ManageError> {
        let name = role_name(function);
        let arn = match self.find(&name).await? {
            Some((arn, true)) => arn,
            Some((_, false)) => {
                return Err(ManageError::Call {
                    action: "make role",
                    name,
                    reason: "there is one of that name that lswitch has not made; name a role with --role ARN".into(),
                });
            }
            None => {
                let tag = Tag::builder().key(TAG).value(env!("CARGO_PKG_VERSION"));
                let create = self
                    .client
                    .create_role()
                    .role_name(&name)
                    .description(format!("What the function {function} of lswitch may do"))
                    .assume_role_policy_document(trust().to_string())
                    .set_tags(tag.build().ok().map(|tag| vec![tag]));
                let created = create.send().await.map_err(failed("make role", &name))?;
                created
                    .role()
                    .map(|role| role.arn().to_string())
                    .unwrap_or_default()
            }
        };
        let put = self
            .client
            .put_role_policy()
            .role_name(&name)
            .policy_name(POLICY);
        let put = put
            .policy_document(policy(Part::Worker, scope).to_string())
            .send()
            .await;
        put.map_err(failed("give its policy to role", &name))?;
        Ok(arn)
    }

    /// The name of a function's role, if lswitch has made one.
    ///
    /// # Errors
    /// When IAM does not answer, or refuses.
    pub async fn own(&self, function: &str) -> Result<Option<String>, ManageError> {
        let name = role_name(function);
        let found = self.find(&name).await?;
        Ok(found.filter(|(_, own)| *own).map(|_| name))
    }

    /// Takes away the role that [`Self::make`] has made.
    ///
    /// # Errors
    /// When IAM refuses.
    pub async fn delete(&self, name: &str) -> Result<(), ManageError> {
        let policy = self
            .client
            .delete_role_policy()
            .role_name(name)
            .policy_name(POLICY);
        match policy.send().await {
            Err(error) if error.code() != Some("NoSuchEntity") => {
                return Err(failed("take its policy from role", name)(error));
            }
            _ => {}
        }
        match self.client.delete_role().role_name(name).send().await {
            Err(error) if error.code() != Some("NoSuchEntity") => {
                Err(failed("delete role", name)(error))
            }
            _ => Ok(()),
        }
    }

    /// The ARN of a role, and whether lswitch has made it.
    async fn find(&self, name: &str) -> Result<Option<(String, bool)>, ManageError> {
        match self.client.get_role().role_name(name).send().await {
            Ok(found) => Ok(found.role().map(|role| {
                let own = role.tags().iter().any(|tag| tag.key() == TAG);
                (role.arn().to_string(), own)
            })),
            Err(error) if error.code() == Some("NoSuchEntity") => Ok(None),
            Err(error) => Err(failed("look at role", name)(error)),
        }
    }
}
