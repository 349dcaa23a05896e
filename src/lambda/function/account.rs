//! Whose account it is, as AWS's Security Token Service says.

use super::manage::{ManageError, failed};
use aws_config::SdkConfig;
use aws_sdk_sts::Client;

/// Who calls, and in which region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// AWS's partition: `aws`, `aws-cn`, `aws-us-gov`.
    pub partition: String,
    /// The region that calls go to.
    pub region: String,
    /// The account, 12 digits.
    pub account: String,
    /// The ARN of who calls.
    pub caller: String,
}

/// Asks who calls.
///
/// # Errors
/// When there are no credentials, no region, or AWS refuses them.
pub async fn account(config: &SdkConfig) -> Result<Account, ManageError> {
    let refused = |reason: &str| ManageError::Call {
        action: "find",
        name: "the account".into(),
        reason: reason.into(),
    };
    let region = config
        .region()
        .ok_or_else(|| refused("no region is set; give --region or AWS_REGION"))?;
    let asked = Client::new(config).get_caller_identity().send().await;
    let identity = asked.map_err(failed("find", "the account"))?;
    let caller = identity.arn().unwrap_or_default().to_string();
    let partition = caller.split(':').nth(1).unwrap_or("aws").to_string();
    Ok(Account {
        partition,
        region: region.to_string(),
        account: identity.account().unwrap_or_default().into(),
        caller,
    })
}
