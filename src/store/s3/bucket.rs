//! Making a store's bucket.

use aws_sdk_s3::config::Region;
use aws_sdk_s3::operation::head_bucket::HeadBucketError;
use aws_sdk_s3::types::{
    BucketLocationConstraint, CreateBucketConfiguration, PublicAccessBlockConfiguration,
};

use super::S3;
use crate::store::StoreError;

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
        let created = create.set_create_bucket_configuration(place).send().await;
        created.map_err(|error| self.explain("make the bucket of", url, &error))?;
        let block = PublicAccessBlockConfiguration::builder()
            .block_public_acls(true)
            .ignore_public_acls(true)
            .block_public_policy(true)
            .restrict_public_buckets(true)
            .build();
        let close = self.client.put_public_access_block().bucket(&self.bucket);
        let closed = close.public_access_block_configuration(block).send().await;
        closed.map_err(|error| self.explain("close the bucket of", url, &error))?;
        Ok(true)
    }
}
