//! TLS for servers: certificates from files chosen by SNI, renewed while connections stay, and the handshake.
//!
//! Always holds:
//! - TLS 1.3 and 1.2, the latter only with ECDHE and AEAD (Mozilla's intermediate profile); no early data, no
//!   renegotiation, no session state on the server: tickets, whose keys change every six hours, shared by all
//!   threads that share one [`Tls`].
//! - Choosing a certificate takes no lock: an exact name before a wildcard (which stands for one label), before
//!   the default. A name that nothing serves is refused with the alert `unrecognized_name`.
//! - A certificate in use is only ever replaced by one that is good: what can't be read, does not fit its key or is
//!   out of its time is reported, and the old one stays. Connections that are open notice nothing.
//!
//! Deliberately absent: client certificates, OCSP stapling (certificate authorities are giving it up), the time
//! limit of a handshake (the caller has a clock), and ACME. Its place is beside [`DevelopmentCa`]: an issuer that
//! writes `chain.pem` and `key.pem` below the data directory and calls [`Tls::reload`]; `tls-alpn-01` would be
//! answered in [`Tls::accept`], where the hello is known and nothing has been chosen.

mod certificate;
mod development;
mod handshake;
mod settings;
mod table;
#[cfg(test)]
mod tests;
mod trust;
mod watch;

use std::sync::Arc;

use arc_swap::ArcSwap;
use chrono::Utc;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

pub use certificate::{Certificate, CertificateError, CertificateWarning};
pub use development::{DevelopmentCa, DevelopmentCaError};
pub use handshake::Accepted;
pub use settings::{CertificateFiles, TlsError, TlsReport, TlsSettings};
pub use trust::{Platform, TrustCommands};

use certificate::Found;
use table::Table;
use watch::Stamps;

/// All that a server needs to speak TLS. Shared by all threads.
#[derive(Debug)]
pub struct Tls {
    choice: Arc<Choice>,
    /// What all certificates share; its resolver chooses by SNI.
    config: Arc<ServerConfig>,
    /// For whoever changes the certificates, one at a time.
    source: Mutex<Source>,
}

/// Where certificates come from, and what the files were when they were read.
#[derive(Debug)]
struct Source {
    settings: TlsSettings,
    stamps: Stamps,
}

/// Which certificate answers a name. Read without locks.
#[derive(Debug)]
struct Choice {
    table: ArcSwap<Table>,
}

impl Choice {
    /// `name` in lower case.
    fn certificate(&self, name: Option<&str>) -> Option<Arc<Certificate>> {
        self.table.load().find(name)
    }
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        self.certificate(name.as_deref()).map(|certificate| certificate.key().clone())
    }
}

impl Tls {
    /// Reads all certificates. What is odd but usable is logged.
    ///
    /// # Errors
    /// The first certificate that can't be used (also one that has expired or is not valid yet), or where there
    /// is none at all.
    pub fn new(settings: TlsSettings) -> Result<Arc<Self>, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let stamps = Stamps::of(&settings.certificates);
        let (table, warnings) = read_all(&settings, &provider)?;
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        let choice = Arc::new(Choice { table: ArcSwap::from_pointee(table) });
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(TlsError::Library)?
            .with_no_client_auth()
            .with_cert_resolver(choice.clone());
        config.alpn_protocols = settings.alpn.clone();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(TlsError::Library)?;
        config.max_early_data_size = 0;
        Ok(Arc::new(Self {
            choice,
            config: Arc::new(config),
            source: Mutex::new(Source { settings, stamps }),
        }))
    }

    /// The settings of a connection, for callers that make the handshake themselves. Such a handshake refuses an
    /// unknown name with `access_denied`: rustls has no other alert for it.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// The certificate that would answer `server_name` (any case; `None`: the client named none).
    #[must_use]
    pub fn certificate_for(&self, server_name: Option<&str>) -> Option<Arc<Certificate>> {
        let name = server_name.map(str::to_ascii_lowercase);
        self.choice.certificate(name.as_deref())
    }

    /// All certificates from files that are in use, in the order of the settings.
    #[must_use]
    pub fn certificates(&self) -> Vec<Arc<Certificate>> {
        self.choice.table.load().certificates().to_vec()
    }

    /// Reads all files again. A certificate that can't be used now leaves its predecessor in use; open
    /// connections keep theirs.
    pub fn reload(&self) -> TlsReport {
        let mut source = self.source.lock();
        source.stamps = Stamps::of(&source.settings.certificates);
        let (table, report) = self.read_over(&source.settings);
        self.choice.table.store(Arc::new(table));
        report
    }

    /// Takes other settings; certificates that stay are kept as in [`Tls::reload`]. ALPN is not among what can
    /// change: it stays as it was.
    ///
    /// # Errors
    /// The first new certificate that can't be used: then all stays as it was.
    pub fn replace(&self, settings: TlsSettings) -> Result<TlsReport, TlsError> {
        let mut source = self.source.lock();
        let stamps = Stamps::of(&settings.certificates);
        let (table, report) = self.read_over(&settings);
        let known = |error: &CertificateError| {
            source.settings.certificates.iter().any(|files| files.same_as(error.files()))
        };
        if let Some(new) = report.failed.iter().position(|error| !known(error)) {
            let mut failed = report.failed;
            return Err(TlsError::Certificate(failed.swap_remove(new)));
        }
        if table.is_empty() {
            return Err(TlsError::Nothing);
        }
        *source = Source { settings, stamps };
        self.choice.table.store(Arc::new(table));
        Ok(report)
    }

    /// All of `settings`, with what is in use now where a file is bad.
    fn read_over(&self, settings: &TlsSettings) -> (Table, TlsReport) {
        let current = self.choice.table.load();
        let mut report = TlsReport::default();
        let mut certificates = Vec::new();
        for files in &settings.certificates {
            let old = current.certificates().iter().find(|old| old.is_from(files));
            let found = match Found::read(files) {
                Ok(found) => found,
                Err(error) => {
                    report.keep(old, error, &mut certificates);
                    continue;
                }
            };
            let unchanged = old.filter(|old| found.is(old));
            match (unchanged, found.check(self.config.crypto_provider(), Utc::now())) {
                (Some(old), Ok((_, warnings))) => {
                    report.warnings.extend(warnings);
                    certificates.push(old.clone().with_default(files.default));
                }
                // It ended while in use: the watcher says so.
                (Some(old), Err(error)) if error.is_about_time() => {
                    certificates.push(old.clone().with_default(files.default));
                }
                (_, Ok((certificate, warnings))) => {
                    report.loaded.push(files.certificate.clone());
                    report.warnings.extend(warnings);
                    certificates.push(Arc::new(certificate));
                }
                (_, Err(error)) => report.keep(old, error, &mut certificates),
            }
        }
        let (table, warnings) = Table::new(certificates, settings.development.clone());
        report.warnings.extend(warnings);
        (table, report)
    }
}

/// All or nothing.
fn read_all(
    settings: &TlsSettings,
    provider: &CryptoProvider,
) -> Result<(Table, Vec<CertificateWarning>), TlsError> {
    let now = Utc::now();
    let mut all = Vec::new();
    let mut certificates = Vec::new();
    for files in &settings.certificates {
        let (certificate, warnings) = Found::read(files)?.check(provider, now)?;
        certificates.push(Arc::new(certificate));
        all.extend(warnings);
    }
    let (table, warnings) = Table::new(certificates, settings.development.clone());
    all.extend(warnings);
    if table.is_empty() { Err(TlsError::Nothing) } else { Ok((table, all)) }
}
