//! How host and daemon know each other: pinned certificates and proofs bound to the TLS channel.
//!
//! Both sides use this one implementation. A proof is the HMAC-SHA256, under the machine's shared key,
//! of a context and 32 bytes of the TLS exporter (RFC 8446, section 7.5). The exporter differs on
//! every connection, so a proof that was overheard proves nothing on another.
//!
//! Deliberately absent: certificate authorities, names and dates. A certificate is the right one if
//! its SHA-256 is, and its holder has the key if the handshake's signature says so.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, ConnectionCommon, DigitallySignedStruct, DistinguishedName, OtherError,
    PeerIncompatible, ServerConfig, SignatureScheme,
};
use sha2::{Digest, Sha256};
use socket2::{SockRef, TcpKeepalive};
use subtle::ConstantTimeEq;
use tokio::net::TcpStream;

use crate::identity::Certificate;

/// Bytes of keying material that a proof covers.
pub const EXPORTER_LENGTH: usize = 32;
/// Silence after which the kernel asks whether the other side is still there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
/// The scheme of the `authorization` header.
const SCHEME: &str = "Hythe";

/// The certificate that was shown is not the pinned one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the certificate shown is {found}, expected {expected}")]
pub struct PinMismatch {
    pub expected: String,
    pub found: String,
}

impl PinMismatch {
    /// The mismatch at the bottom of a failed handshake, where it is the cause.
    #[must_use]
    pub fn find<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        match rustls_error(error)? {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other))) => {
                other.downcast_ref()
            }
            _ => None,
        }
    }
}

/// The TLS error at the bottom of a chain of errors.
#[must_use]
pub fn rustls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        // An io::Error's source() is its inner error's source: the inner error itself is only here.
        if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref)
            && let Some(found) = rustls_error(inner)
        {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// What both sides of one connection must say. Made from the connection's exporter.
#[derive(Clone)]
pub struct Proofs {
    machine_id: Arc<str>,
    client: String,
    server: String,
}

impl Proofs {
    /// For one TLS connection, once its handshake is complete.
    ///
    /// # Errors
    /// Where the handshake is not complete.
    pub fn new<Data>(
        connection: &ConnectionCommon<Data>,
        machine_id: &str,
        shared_key: &[u8],
    ) -> Result<Self, rustls::Error> {
        let exporter =
            connection.export_keying_material([0_u8; EXPORTER_LENGTH], agent_api::EXPORTER_LABEL, None)?;
        Ok(Self::from_exporter(&exporter, machine_id, shared_key))
    }

    /// The same from the exporter itself.
    #[must_use]
    pub fn from_exporter(exporter: &[u8; EXPORTER_LENGTH], machine_id: &str, shared_key: &[u8]) -> Self {
        Self {
            machine_id: machine_id.into(),
            client: proof(shared_key, agent_api::CLIENT_PROOF_CONTEXT, exporter),
            server: proof(shared_key, agent_api::SERVER_PROOF_CONTEXT, exporter),
        }
    }

    /// Value of the host's `authorization` header.
    #[must_use]
    pub fn authorization(&self) -> String {
        format!("{SCHEME} {} {}", self.machine_id, self.client)
    }

    /// Whether this is the value of an `authorization` header that proves the host.
    #[must_use]
    pub fn proves_host(&self, authorization: &[u8]) -> bool {
        self.authorization().as_bytes().ct_eq(authorization).into()
    }

    /// Value of the daemon's `hythe-proof` header.
    #[must_use]
    pub fn daemon_proof(&self) -> &str {
        &self.server
    }

    /// Whether this is the value of a `hythe-proof` header that proves the daemon.
    #[must_use]
    pub fn proves_daemon(&self, proof: &[u8]) -> bool {
        self.server.as_bytes().ct_eq(proof).into()
    }
}

fn proof(shared_key: &[u8], context: &[u8], exporter: &[u8]) -> String {
    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length (RFC 2104, section 2)")]
    let mut mac = Hmac::<Sha256>::new_from_slice(shared_key).expect("a key of any length");
    mac.update(context);
    mac.update(exporter);
    hex::encode(mac.finalize().into_bytes())
}

/// TLS of a host that talks to the daemon whose certificate has this lower-case hex SHA-256.
///
/// # Errors
/// Where the host's certificate and key can't be used.
pub fn client_config(host: &Certificate, daemon_sha256: &str) -> Result<ClientConfig, rustls::Error> {
    let provider = provider();
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned::new(provider, daemon_sha256)))
        .with_client_auth_cert(vec![host.der()], host.key())?;
    config.alpn_protocols = vec![agent_api::ALPN.to_vec()];
    config.enable_sni = false;
    Ok(config)
}

/// TLS of a daemon that takes requests from the host whose certificate has this lower-case hex SHA-256.
///
/// # Errors
/// Where the daemon's certificate and key can't be used.
pub fn server_config(daemon: &Certificate, host_sha256: &str) -> Result<ServerConfig, rustls::Error> {
    let provider = provider();
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(Pinned::new(provider, host_sha256)))
        .with_single_cert(vec![daemon.der()], daemon.key())?;
    config.alpn_protocols = vec![agent_api::ALPN.to_vec()];
    Ok(config)
}

/// No waiting for more to send, and a peer that is gone is noticed: what both sides want of a connection.
///
/// # Errors
/// Where the kernel refuses.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Accepts one certificate, known by its digest, from one who has its key.
#[derive(Debug)]
struct Pinned {
    provider: Arc<CryptoProvider>,
    expected: String,
}

impl Pinned {
    fn new(provider: Arc<CryptoProvider>, expected: &str) -> Self {
        Self { provider, expected: expected.to_ascii_lowercase() }
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let found = hex::encode(Sha256::digest(certificate));
        if bool::from(found.as_bytes().ct_eq(self.expected.as_bytes())) {
            return Ok(());
        }
        let mismatch = PinMismatch { expected: self.expected.clone(), found };
        Err(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(mismatch)))))
    }

    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::SupportedVersionsExtensionRequired.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_bound_to_key_channel_side_and_machine() {
        let proofs = Proofs::from_exporter(&[1; 32], "mach_a", b"key");
        let right = proofs.authorization();
        assert!(proofs.proves_host(right.as_bytes()));
        assert!(proofs.proves_daemon(proofs.daemon_proof().as_bytes()));
        assert!(!proofs.proves_daemon(proofs.client.as_bytes()));
        for other in [
            Proofs::from_exporter(&[2; 32], "mach_a", b"key"),
            Proofs::from_exporter(&[1; 32], "mach_b", b"key"),
            Proofs::from_exporter(&[1; 32], "mach_a", b"other"),
        ] {
            assert!(!other.proves_host(right.as_bytes()));
        }
        assert!(!proofs.proves_host(b""));
        assert!(!proofs.proves_host(&right.as_bytes()[..right.len() - 1]));
    }

    /// The figure is OpenSSL's: `openssl dgst -sha256 -hmac k` of the context and 32 zero bytes.
    #[test]
    fn the_proof_is_the_documented_one() {
        let proofs = Proofs::from_exporter(&[0; 32], "mach_a", b"k");
        let expected = "Hythe mach_a e73efd2591f3ab24fd7f42a50facffdf362af24451ee73c965d7d45b24f13b67";
        assert_eq!(proofs.authorization(), expected);
    }
}
