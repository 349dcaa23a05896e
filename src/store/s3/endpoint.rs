//! Where requests go.

use aws_sdk_s3::config::endpoint::{DefaultResolver, EndpointFuture, Params, ResolveEndpoint};

/// The SDK's own rules for endpoints, except that the bucket goes into the path whenever the endpoint was set by hand
/// (AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_S3, a profile, a caller's configuration): `bucket.localhost` rarely has an address.
#[derive(Debug)]
pub(super) struct PathStyleForCustomEndpoints(pub(super) DefaultResolver);

impl ResolveEndpoint for PathStyleForCustomEndpoints {
    fn resolve_endpoint<'a>(&'a self, params: &'a Params) -> EndpointFuture<'a> {
        let Some(endpoint) = params.endpoint() else {
            return ResolveEndpoint::resolve_endpoint(&self.0, params);
        };
        let in_path = Params::builder()
            .force_path_style(true)
            .endpoint(with_slash(endpoint))
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

/// The endpoint with exactly one slash at its end. The SDK appends the bucket's name to the path as it is, so that
/// `http://host/gateway` and the bucket `data` would become `/gatewaydata`.
fn with_slash(endpoint: &str) -> String {
    format!("{}/", endpoint.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_bucket_follows_the_path_of_the_endpoint_after_one_slash() {
        let resolver = PathStyleForCustomEndpoints(DefaultResolver::new());
        for (endpoint, expected) in [
            ("http://host:9000", "http://host:9000/data"),
            ("http://host:9000/", "http://host:9000/data"),
            ("http://host/gateway", "http://host/gateway/data"),
            ("http://host/gateway/", "http://host/gateway/data"),
            (
                "https://host/storage/v1/s3",
                "https://host/storage/v1/s3/data",
            ),
        ] {
            let params = Params::builder()
                .endpoint(endpoint)
                .bucket("data")
                .region("us-east-1")
                .build()
                .unwrap();
            let resolved = resolver.resolve_endpoint(&params).await.unwrap();
            assert_eq!(resolved.url(), expected, "{endpoint}");
        }
    }
}
