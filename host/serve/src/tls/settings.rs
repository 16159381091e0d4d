//! What a server is told about TLS, and what it says back.

use std::path::PathBuf;
use std::sync::Arc;

use super::certificate::{Certificate, CertificateError, CertificateWarning};
use super::development::DevelopmentCa;

/// One certificate in two files of PEM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CertificateFiles {
    /// The certificate, followed by those of the authorities between it and the root.
    pub certificate: PathBuf,
    /// Its private key: PKCS #8, PKCS #1 or SEC 1, without a passphrase.
    pub key: PathBuf,
    /// Whether it answers names that no certificate has, and clients that name none. Where several do, the first.
    pub default: bool,
}

impl CertificateFiles {
    /// Whether both read the same files.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        self.certificate == other.certificate && self.key == other.key
    }
}

/// What to serve.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    pub certificates: Vec<CertificateFiles>,
    /// Answers names below its own that no file has.
    pub development: Option<Arc<DevelopmentCa>>,
    /// Protocols to offer by ALPN, the preferred first. A client that offers only others is refused; one that
    /// offers none is served.
    pub alpn: Vec<Vec<u8>>,
}

impl Default for TlsSettings {
    fn default() -> Self {
        Self { certificates: Vec::new(), development: None, alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()] }
    }
}

/// Why TLS can't be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(
        "TLS has no certificate to serve: name a certificate and its key, or switch the development CA on"
    )]
    Nothing,
    #[error("the TLS library refuses its settings")]
    Library(#[source] rustls::Error),
}

/// What reading the files again brought.
#[derive(Debug, Default)]
pub struct TlsReport {
    /// Certificate files whose content is new and now in use.
    pub loaded: Vec<PathBuf>,
    /// What can't be used. Its predecessor stays in use, where there was one.
    pub failed: Vec<CertificateError>,
    /// What is odd but in use.
    pub warnings: Vec<CertificateWarning>,
}

impl TlsReport {
    pub(super) fn keep(
        &mut self,
        old: Option<&Arc<Certificate>>,
        error: CertificateError,
        certificates: &mut Vec<Arc<Certificate>>,
    ) {
        certificates.extend(old.cloned());
        self.failed.push(error);
    }

    /// Writes it to the log.
    pub fn log(&self) {
        for path in &self.loaded {
            tracing::info!(file = %path.display(), "serving a new certificate");
        }
        for error in &self.failed {
            tracing::error!("the old certificate stays in use: {error}");
        }
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
    }
}
