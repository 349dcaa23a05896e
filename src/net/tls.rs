//! TLS 1.3 between the switch and who connects to it: the switch's certificate, and whom a client takes for the switch.
//!
//! There is no authority. The switch's address names the SHA-256 of its certificate ([`crate::net::address`]), and a client
//! takes that certificate and no other, whatever it says of names and times. [`Session`] is one end of a connection, without
//! its socket; threads, tokio and the switch's loop put their own around it.

mod session;

pub use session::{RECORD_MAX, Room, SEALED_MAX, Session};

use crate::net::address::Fingerprint;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, ClientConnection, Resumption};
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ServerConfig, ServerConnection};
use rustls::version::TLS13;
use rustls::{CertificateError, DigitallySignedStruct, OtherError, SignatureScheme};
use std::sync::Arc;
use thiserror::Error;

/// Why an end of a connection cannot go on.
#[derive(Debug, Clone, Error)]
pub enum TlsError {
    /// The peer's first byte begins no record of TLS.
    #[error("the peer does not speak TLS")]
    NotTls {
        /// The byte that came instead.
        first: u8,
    },
    /// The switch has another certificate than its address names.
    #[error("the switch's certificate has the SHA-256 {found}")]
    OtherCertificate {
        /// Its fingerprint.
        found: Fingerprint,
    },
    /// Who has not proved itself yet has sent more than it needs to.
    #[error("more came before a valid hello than that needs")]
    TooMuch,
    /// The handshake or a record failed.
    #[error("TLS: {0}")]
    Broken(#[from] rustls::Error),
}

/// What is wrong with a certificate or its key.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// There is no certificate to be read.
    #[error("no certificate in PEM: {0}")]
    Certificate(rustls::pki_types::pem::Error),
    /// There is no key to be read.
    #[error("no private key in PEM: {0}")]
    Key(rustls::pki_types::pem::Error),
    /// They do not go together, or are of a kind that is not known.
    #[error("the certificate and its key are of no use: {0}")]
    Refused(#[from] rustls::Error),
    /// None could be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// A switch's certificate and its key.
#[derive(Clone)]
pub struct Identity {
    config: Arc<ServerConfig>,
    fingerprint: Fingerprint,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Identity({})", self.fingerprint)
    }
}

impl Identity {
    /// A new certificate and its key, as PEM, for [`Identity::from_pem`].
    ///
    /// # Errors
    /// When the library cannot make one.
    pub fn make_pem() -> Result<(String, String), IdentityError> {
        let key = rcgen::KeyPair::generate()?;
        let mut parameters = rcgen::CertificateParams::new(vec!["lswitch".into()])?;
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        let name = rcgen::DnType::CommonName;
        parameters.distinguished_name.push(name, "lswitch switch");
        let certificate = parameters.self_signed(&key)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// A certificate, which those that vouch for it may follow, and its key.
    ///
    /// # Errors
    /// When one of them cannot be read, or they do not go together.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Identity, IdentityError> {
        let chain: Vec<CertificateDer> = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<_, _>>()
            .map_err(IdentityError::Certificate)?;
        let own = chain.first().ok_or(IdentityError::Certificate(
            rustls::pki_types::pem::Error::NoItemsFound,
        ))?;
        let fingerprint = Fingerprint::of(own);
        let key = PrivateKeyDer::from_pem_slice(key).map_err(IdentityError::Key)?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.ignore_client_order = true;
        // Nobody comes back to a session: a job's members connect once.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Identity {
            config: Arc::new(config),
            fingerprint,
        })
    }

    /// What addresses of the switch name.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The switch's end of a new connection.
    ///
    /// # Errors
    /// When the library refuses.
    pub fn session(&self) -> Result<Session, TlsError> {
        let connection = ServerConnection::new(self.config.clone())?;
        Ok(Session::new(connection.into()))
    }
}

/// A client's end of a new connection to the switch that has this certificate.
///
/// # Errors
/// When the library refuses.
pub fn client(pin: Fingerprint) -> Result<Session, TlsError> {
    let provider = provider();
    let verifier = Pinned {
        pin,
        provider: provider.clone(),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    // It is sent to nobody, and nothing is compared with it.
    let name = ServerName::try_from("lswitch").expect("this is a name");
    let connection = ClientConnection::new(Arc::new(config), name)?;
    Ok(Session::new(connection.into()))
}

/// Both ends' algorithms: those of TLS 1.3, the fastest first.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..aws_lc_rs::default_provider()
    })
}

/// Takes one certificate, and who proves to have its key.
#[derive(Debug)]
struct Pinned {
    pin: Fingerprint,
    provider: Arc<CryptoProvider>,
}

/// What [`Pinned`] says of any other.
#[derive(Debug, Error)]
#[error("another certificate")]
struct Other(Fingerprint);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = Fingerprint::of(end_entity);
        if found == self.pin {
            return Ok(ServerCertVerified::assertion());
        }
        let other = OtherError(Arc::new(Other(found)));
        Err(CertificateError::Other(other).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// The library's error, or what [`Pinned`] has to say.
fn told(error: rustls::Error) -> TlsError {
    if let rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other))) = &error
        && let Some(Other(found)) = other.downcast_ref::<Other>()
    {
        return TlsError::OtherCertificate { found: *found };
    }
    TlsError::Broken(error)
}
