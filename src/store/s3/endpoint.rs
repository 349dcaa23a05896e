//! Where requests go.

use aws_sdk_s3::config::endpoint::{DefaultResolver, EndpointFuture, Params, ResolveEndpoint};

/// The SDK's own rules for endpoints, except that the bucket goes into the path whenever the endpoint was set by hand
/// (AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_S3, a profile, a caller's configuration): `bucket.localhost` rarely has an address.
#[derive(Debug)]
pub(super) struct PathStyleForCustomEndpoints(pub(super) DefaultResolver);

impl ResolveEndpoint for PathStyleForCustomEndpoints {
    fn resolve_endpoint<'a>(&'a self, params: &'a Params) -> EndpointFuture<'a> {
        if params.endpoint().is_none() {
            return ResolveEndpoint::resolve_endpoint(&self.0, params);
        }
        let in_path = Params::builder()
            .force_path_style(true)
            .set_endpoint(params.endpoint().map(str::to_owned))
            .set_bucket(params.bucket().map(str::to_owned))
            .set_key(params.key().map(str::to_owned))
            .set_prefix(params.prefix().map(str::to_owned))
            .set_region(params.region().map(str::to_owned))
            .set_use_fips(params.use_fips())
            .set_use_dual_stack(params.use_dual_stack())
            .set_accelerate(params.accelerate())
            .set_use_global_endpoint(params.use_global_endpoint())
            .set_disable_multi_region_access_points(params.disable_multi_region_access_points())
            .set_disable_s3_express_session_auth(params.disable_s3_express_session_auth())
            .build();
        match in_path {
            Ok(params) => EndpointFuture::new(async move {
                ResolveEndpoint::resolve_endpoint(&self.0, &params).await
            }),
            Err(error) => EndpointFuture::ready(Err(error.into())),
        }
    }
}
