//! Buckets whose requester pays: S3 wants to read in each request that the caller agrees.

use std::env;

use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;

/// The variable that other programs (GDAL, rasterio) use for it, since AWS has none.
const VARIABLE: &str = "AWS_REQUEST_PAYER";

/// Agrees to pay for each request.
#[derive(Debug)]
pub(super) struct Payer;

impl Payer {
    /// The payer, if the environment asks for one.
    pub(super) fn of_environment() -> Option<Payer> {
        (env::var(VARIABLE).ok()? == "requester").then_some(Payer)
    }
}

impl Intercept for Payer {
    fn name(&self) -> &'static str {
        "lswitch request payer"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.request_mut().headers_mut();
        headers.insert("x-amz-request-payer", "requester");
        Ok(())
    }
}
