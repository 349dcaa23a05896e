//! Which authorities are trusted to sign the certificates of AWS's services and of their stand-ins.
//!
//! `AWS_CA_BUNDLE`, or `ca_bundle` of the profile, names a file of certificates that replaces the system's list, as with
//! boto3 and AWS's command line. The SDK for Rust does not read it by itself.

use super::{AwsError, variable};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, ConnectorBuilder};
use aws_types::sdk_config::SharedHttpClient;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::fs;

/// The variable that names the bundle.
const VARIABLE: &str = "AWS_CA_BUNDLE";

/// A client for HTTP that trusts the bundle of the settings; none if there is no bundle, so that the SDK's own does.
pub(super) fn http_client(of_profile: Option<&str>) -> Result<Option<SharedHttpClient>, AwsError> {
    let (setting, path) = match (variable(VARIABLE), of_profile) {
        (Some(path), _) => (VARIABLE, path),
        (None, Some(path)) => ("ca_bundle", path.to_owned()),
        (None, None) => return Ok(None),
    };
    let bundle = |problem| AwsError::Bundle {
        setting,
        path: path.clone(),
        problem,
    };
    let text = fs::read(&path).map_err(|error| bundle(error.to_string()))?;
    let store = trust_store(&text).map_err(bundle)?;
    let context = TlsContext::builder().with_trust_store(store).build();
    let context = context.map_err(|error| bundle(error.to_string()))?;
    Ok(Some(trusting(context)))
}

/// The certificates of a bundle. The SDK panics at one that it cannot read, so these are read before.
fn trust_store(text: &[u8]) -> Result<TrustStore, String> {
    let mut readable = RootCertStore::empty();
    let mut store = TrustStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text) {
        let certificate = certificate.map_err(|error| format!("it is no PEM: {error:?}"))?;
        // Bundles of systems have old certificates, too, which no server uses any more.
        if readable.add(certificate.clone()).is_ok() {
            store.add_pem_certificate(pem(&certificate));
        }
    }
    match readable.is_empty() {
        false => Ok(store),
        true => Err("it has no certificate".to_owned()),
    }
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = BASE64.encode(certificate.as_ref());
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

/// The SDK's own client but for what it trusts: proxies come from the environment.
fn trusting(context: TlsContext) -> SharedHttpClient {
    Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = ConnectorBuilder::default()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(context.clone())
            .proxy_config(ProxyConfig::from_env());
        connector.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            connector.set_sleep_impl(components.sleep_impl());
        }
        connector.build()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_read_before_the_sdk_would_panic_at_it() {
        let key = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let good = key.cert.pem();
        assert!(trust_store(good.as_bytes()).is_ok());
        // A system's bundle has text between its certificates.
        let two = format!("authority one\n{good}\nauthority two\n{good}");
        assert!(trust_store(two.as_bytes()).is_ok());
        let broken = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
        for (text, words) in [
            ("", "no certificate"),
            ("just text", "no certificate"),
            (broken, "no PEM"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "no certificate",
            ),
        ] {
            let problem = trust_store(text.as_bytes()).err().unwrap_or_default();
            assert!(problem.contains(words), "{text}: {problem}");
        }
    }
}
