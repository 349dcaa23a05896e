//! Making a store's bucket.

use aws_sdk_s3::config::Region;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::operation::head_bucket::HeadBucketError;
use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, BucketLocationConstraint,
    CreateBucketConfiguration, ExpirationStatus, LifecycleRule, LifecycleRuleFilter,
    PublicAccessBlockConfiguration,
};

use super::S3;
use crate::store::StoreError;

/// Days after which S3 aborts an upload that was not finished. No write of a job takes so long, and parts cost money.
const UNFINISHED_DAYS: i32 = 2;

impl S3 {
    pub(in crate::store) async fn make_bucket(&self, url: &str) -> Result<bool, StoreError> {
        let head = self.client.head_bucket().bucket(&self.bucket).send().await;
        match head {
            Ok(_) => return Ok(false),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(HeadBucketError::is_not_found) => {}
            Err(error) => return Err(self.explain("look at the bucket of", url, &error)),
        }
        let region = self.client.config().region().map(Region::as_ref);
        // S3's first region is named by naming none.
        let place = region
            .filter(|region| *region != "us-east-1")
            .map(|region| {
                CreateBucketConfiguration::builder()
                    .location_constraint(BucketLocationConstraint::from(region))
                    .build()
            });
        let create = self.client.create_bucket().bucket(&self.bucket);
        match create.set_create_bucket_configuration(place).send().await {
            Ok(_) => {}
            // It was not there a moment ago and is ours now: the SDK repeated a request whose answer was lost.
            Err(error) if error.code() == Some("BucketAlreadyOwnedByYou") => {}
            Err(error) => return Err(self.explain("make the bucket of", url, &error)),
        }
        let block = PublicAccessBlockConfiguration::builder()
            .block_public_acls(true)
            .ignore_public_acls(true)
            .block_public_policy(true)
            .restrict_public_buckets(true)
            .build();
        let close = self.client.put_public_access_block().bucket(&self.bucket);
        let closed = close.public_access_block_configuration(block).send().await;
        closed.map_err(|error| self.explain("close the bucket of", url, &error))?;
        if let Err(error) = self.abort_unfinished_uploads(url).await {
            // The bucket is of use without the rule.
            tracing::warn!("{error}");
        }
        Ok(true)
    }

    /// Has S3 abort uploads that were not finished, as those of processes that were killed.
    async fn abort_unfinished_uploads(&self, url: &str) -> Result<(), StoreError> {
        let action = "set the lifecycle of the bucket of";
        let abort = AbortIncompleteMultipartUpload::builder()
            .days_after_initiation(UNFINISHED_DAYS)
            .build();
        let rule = LifecycleRule::builder()
            .id("lswitch-abort-unfinished-uploads")
            .status(ExpirationStatus::Enabled)
            .filter(LifecycleRuleFilter::builder().prefix("").build())
            .abort_incomplete_multipart_upload(abort)
            .build()
            .expect("the rule has a status");
        let rules = BucketLifecycleConfiguration::builder().rules(rule).build();
        let rules = rules.expect("there is a rule");
        let put = self.client.put_bucket_lifecycle_configuration();
        let put = put.bucket(&self.bucket).lifecycle_configuration(rules);
        let put = put.send().await;
        put.map(drop)
            .map_err(|error| self.explain(action, url, &error))
    }
}
