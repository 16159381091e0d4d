//! One certificate: read from its files, checked, and what it is good for.

use std::fmt;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::time::Time;

use super::settings::CertificateFiles;

/// A certificate that may be served, and for whom.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// None: made by us, in memory.
    files: Option<CertificateFiles>,
    key: Arc<CertifiedKey>,
    names: Names,
    not_before: DateTime<Utc>,
    not_after: DateTime<Utc>,
}

/// The names in a certificate (`subjectAltName`), in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub exact: Vec<String>,
    /// What follows `*.`.
    pub wildcard: Vec<String>,
    pub addresses: Vec<IpAddr>,
}

impl Certificate {
    /// Whether clients accept it for `host`: a name (any case, no port, no trailing dot) or an address (without
    /// brackets). A request for a host that its connection's certificate does not cover is misdirected (421).
    #[must_use]
    pub fn covers(&self, host: &str) -> bool {
        if let Ok(address) = host.parse::<IpAddr>() {
            return self.names.addresses.contains(&address);
        }
        let is = |name: &String| name.eq_ignore_ascii_case(host);
        self.names.exact.iter().any(is)
            || host.split_once('.').is_some_and(|(label, parent)| {
                !label.is_empty() && self.names.wildcard.iter().any(|name| name.eq_ignore_ascii_case(parent))
            })
    }

    /// Its names: `example.com`, `*.example.com`, addresses.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let wildcard = self.names.wildcard.iter().map(|name| format!("*.{name}"));
        let addresses = self.names.addresses.iter().map(ToString::to_string);
        self.names.exact.iter().cloned().chain(wildcard).chain(addresses).collect()
    }

    /// Its file; none where it was made by the development CA.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.files.as_ref().map(|files| files.certificate.as_path())
    }

    /// When its time begins.
    #[must_use]
    pub fn not_before(&self) -> DateTime<Utc> {
        self.not_before
    }

    /// When its time ends.
    #[must_use]
    pub fn not_after(&self) -> DateTime<Utc> {
        self.not_after
    }

    pub(super) fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    pub(super) fn by_name(&self) -> &Names {
        &self.names
    }

    pub(super) fn is_default(&self) -> bool {
        self.files.as_ref().is_some_and(|files| files.default)
    }

    pub(super) fn is_from(&self, files: &CertificateFiles) -> bool {
        self.files.as_ref().is_some_and(|own| own.same_as(files))
    }

    /// The same one where nothing changes.
    pub(super) fn with_default(self: Arc<Self>, default: bool) -> Arc<Self> {
        if self.is_default() == default {
            return self;
        }
        let mut changed = Self::clone(&self);
        if let Some(files) = &mut changed.files {
            files.default = default;
        }
        Arc::new(changed)
    }

    /// One that was made here.
    pub(super) fn made(
        key: CertifiedKey,
        names: Names,
        not_before: DateTime<Utc>,
        not_after: DateTime<Utc>,
    ) -> Self {
        Self { files: None, key: Arc::new(key), names, not_before, not_after }
    }
}

/// Why a certificate can't be used. Says which file, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct CertificateError {
    files: Box<CertificateFiles>,
    what: Wrong,
}

impl CertificateError {
    /// Whose it is.
    #[must_use]
    pub fn files(&self) -> &CertificateFiles {
        &self.files
    }

    /// Whether all of it is good but the moment.
    pub(super) fn is_about_time(&self) -> bool {
        matches!(self.what, Wrong::Expired { .. } | Wrong::NotYetValid { .. })
    }
}

#[derive(Debug, thiserror::Error)]
enum Wrong {
    #[error("can't read {}: {source}; check that it is there and that this user may read it", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is no good PEM ({reason}): write it anew", path.display())]
    Pem { path: PathBuf, reason: String },
    #[error("{} has no certificate: it must have a section that begins with -----BEGIN CERTIFICATE-----", .0.display())]
    NoCertificate(PathBuf),
    #[error("{} has no private key: it must have a section such as -----BEGIN PRIVATE KEY-----", .0.display())]
    NoKey(PathBuf),
    #[error("the private key in {} is locked by a passphrase: unlock it with `openssl pkey -in KEY -out NEW`", .0.display())]
    Locked(PathBuf),
    #[error("the private key in {} can't be used ({reason}): take ECDSA (P-256, P-384), Ed25519 or RSA of 2048 bits or more", path.display())]
    Key { path: PathBuf, reason: String },
    #[error("the first certificate in {} can't be used: {reason}", path.display())]
    Certificate { path: PathBuf, reason: String },
    #[error(
        "the certificate in {} does not fit the key in {}: each must be of the same pair, and the server's own \
         certificate must be the first in its file",
        certificate.display(),
        key.display()
    )]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error(
        "the certificate in {} names no host (subjectAltName): clients read names only there; have it issued with them",
        .0.display()
    )]
    NoNames(PathBuf),
    #[error("the certificate in {} has expired at {at}: renew it", path.display())]
    Expired { path: PathBuf, at: DateTime<Utc> },
    #[error("the certificate in {} is not valid before {from}: check this machine's clock, or wait", path.display())]
    NotYetValid { path: PathBuf, from: DateTime<Utc> },
}

/// What is odd about a certificate that is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateWarning {
    /// Its key's file is readable by every user of the machine.
    KeyReadableByOthers { key: PathBuf },
    /// Two certificates have the name; the one that ends later answers it.
    SameName { name: String, used: PathBuf, unused: PathBuf },
    /// A name in it that no client can ask for.
    UnusableName { certificate: PathBuf, name: String },
}

impl fmt::Display for CertificateWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyReadableByOthers { key } => {
                let key = key.display();
                write!(f, "every user of this machine can read the private key {key}: `chmod o= {key}`")
            }
            Self::SameName { name, used, unused } => write!(
                f,
                "two certificates have the name {name}: {} is served, since it ends later than {}",
                used.display(),
                unused.display()
            ),
            Self::UnusableName { certificate, name } => write!(
                f,
                "the name {name:?} in {} is passed over: a wildcard stands for the whole first label",
                certificate.display()
            ),
        }
    }
}

/// What the two files hold, not checked yet.
pub(super) struct Found {
    files: CertificateFiles,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    readable_by_others: bool,
}

impl Found {
    /// Reads both files.
    pub(super) fn read(files: &CertificateFiles) -> Result<Self, CertificateError> {
        Self::parse(files).map_err(|what| CertificateError { files: Box::new(files.clone()), what })
    }

    fn parse(files: &CertificateFiles) -> Result<Self, Wrong> {
        let read =
            |path: &Path| std::fs::read(path).map_err(|source| Wrong::Read { path: path.to_owned(), source });
        let bad = |path: &Path, error: &rustls::pki_types::pem::Error| Wrong::Pem {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        let chain = read(&files.certificate)?;
        let chain = CertificateDer::pem_slice_iter(&chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| bad(&files.certificate, &error))?;
        if chain.is_empty() {
            return Err(Wrong::NoCertificate(files.certificate.clone()));
        }
        let pem = read(&files.key)?;
        let key = match PrivateKeyDer::pem_slice_iter(&pem).next() {
            Some(Ok(key)) => key,
            Some(Err(error)) => return Err(bad(&files.key, &error)),
            None if is_locked(&pem) => return Err(Wrong::Locked(files.key.clone())),
            None => return Err(Wrong::NoKey(files.key.clone())),
        };
        let readable_by_others =
            std::fs::metadata(&files.key).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0);
        Ok(Self { files: files.clone(), chain, key, readable_by_others })
    }

    /// Whether it is what is in use.
    pub(super) fn is(&self, served: &Certificate) -> bool {
        self.chain == served.key.cert
    }

    /// Whether it may be served at `now`.
    pub(super) fn check(
        self,
        provider: &CryptoProvider,
        now: DateTime<Utc>,
    ) -> Result<(Certificate, Vec<CertificateWarning>), CertificateError> {
        let files = self.files.clone();
        self.into_certificate(provider, now).map_err(|what| CertificateError { files: Box::new(files), what })
    }

    fn into_certificate(
        self,
        provider: &CryptoProvider,
        now: DateTime<Utc>,
    ) -> Result<(Certificate, Vec<CertificateWarning>), Wrong> {
        let Self { files, chain, key, readable_by_others } = self;
        let path = files.certificate.clone();
        let unusable = |reason: String| Wrong::Certificate { path: path.clone(), reason };
        let (not_before, not_after, sans) = {
            let parsed =
                x509_cert::Certificate::from_der(&chain[0]).map_err(|error| unusable(error.to_string()))?;
            let parsed = parsed.tbs_certificate;
            let time = |at: Time| {
                let seconds = i64::try_from(at.to_unix_duration().as_secs()).ok();
                seconds
                    .and_then(|seconds| DateTime::from_timestamp(seconds, 0))
                    .ok_or_else(|| unusable("its dates can't be read".to_owned()))
            };
            let alternative = parsed.get::<SubjectAltName>().map_err(|error| unusable(error.to_string()))?;
            let sans = names(alternative.map(|(_, names)| names.0).unwrap_or_default());
            (time(parsed.validity.not_before)?, time(parsed.validity.not_after)?, sans)
        };
        let key = provider
            .key_provider
            .load_private_key(key)
            .map_err(|error| Wrong::Key { path: files.key.clone(), reason: error.to_string() })?;
        let key = CertifiedKey::new(chain, key);
        match key.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(Error::InconsistentKeys(_)) => {
                return Err(Wrong::Mismatch { certificate: path, key: files.key });
            }
            Err(error) => return Err(unusable(error.to_string())),
        }
        let (names, unusable_names) = sans;
        if names == Names::default() {
            return Err(Wrong::NoNames(path));
        }
        if not_after < now {
            return Err(Wrong::Expired { path, at: not_after });
        }
        if not_before > now {
            return Err(Wrong::NotYetValid { path, from: not_before });
        }
        let mut warnings = Vec::new();
        if readable_by_others {
            warnings.push(CertificateWarning::KeyReadableByOthers { key: files.key.clone() });
        }
        warnings.extend(
            unusable_names
                .into_iter()
                .map(|name| CertificateWarning::UnusableName { certificate: path.clone(), name }),
        );
        Ok((Certificate { files: Some(files), key: Arc::new(key), names, not_before, not_after }, warnings))
    }
}

fn is_locked(pem: &[u8]) -> bool {
    let text = String::from_utf8_lossy(pem);
    text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED")
}

/// The names, and those that are of no use.
fn names(alternative: Vec<GeneralName>) -> (Names, Vec<String>) {
    let mut names = Names::default();
    let mut unusable = Vec::new();
    for name in alternative {
        match name {
            GeneralName::DnsName(name) => {
                let lower = name.as_str().to_ascii_lowercase();
                match lower.strip_prefix("*.") {
                    Some(parent) if is_name(parent) => names.wildcard.push(parent.to_owned()),
                    None if is_name(&lower) => names.exact.push(lower),
                    _ => unusable.push(name.as_str().to_owned()),
                }
            }
            GeneralName::IpAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(bytes.as_bytes()).map(IpAddr::from);
                let v6 = <[u8; 16]>::try_from(bytes.as_bytes()).map(IpAddr::from);
                names.addresses.extend(v4.or(v6));
            }
            _ => {}
        }
    }
    (names, unusable)
}

fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    name.len() <= 253 && name.split('.').all(label)
}
