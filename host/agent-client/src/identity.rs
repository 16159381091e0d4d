//! Certificates that are pinned by their digest, and where they are kept.
//!
//! Names and dates in them mean nothing: what is compared is the SHA-256 of the DER. A certificate is
//! made once and stays; a new one means that the other side must be told.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

/// File names in the daemon's data folder.
const DAEMON_FILES: [&str; 2] = ["certificate.pem", "key.pem"];
/// File names in the folder of the host.
const HOST_FILES: [&str; 2] = ["host-certificate.pem", "host-key.pem"];

/// Why a certificate can't be had.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{action} {path} failed")]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{path} is not a PEM {what}: restore it, or delete {path} and the other file beside it and register again"
    )]
    Malformed { path: PathBuf, what: &'static str },
    #[error(
        "{certificate} is there but its key {key} is missing: restore the key, or delete the certificate and register again"
    )]
    KeyMissing { certificate: PathBuf, key: PathBuf },
    #[error("making a certificate failed")]
    Generate(#[from] rcgen::Error),
}

/// A self-signed certificate with its key (ECDSA P-256).
#[derive(Clone)]
pub struct Certificate {
    inner: Arc<Inner>,
}

struct Inner {
    der: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    sha256: String,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("sha256", &self.inner.sha256).finish_non_exhaustive()
    }
}

impl Certificate {
    /// The daemon's: `certificate.pem` and `key.pem` (0600) in its data folder, made where missing.
    ///
    /// # Errors
    /// Where the folder can't be used or holds files that are no certificate and key.
    pub fn load_or_create_daemon(dir: &Path) -> Result<Self, IdentityError> {
        load_or_create(dir, DAEMON_FILES, "hythe-agent")
    }

    /// DER of the certificate.
    #[must_use]
    pub fn der(&self) -> CertificateDer<'static> {
        self.inner.der.clone()
    }

    /// Its private key.
    #[must_use]
    pub fn key(&self) -> PrivateKeyDer<'static> {
        self.inner.key.clone_key()
    }

    /// Lower-case hex SHA-256 of the DER: what the other side pins.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.inner.sha256
    }
}

/// The host's client certificate and key.
#[derive(Debug, Clone)]
pub struct HostIdentity {
    certificate: Certificate,
}

impl HostIdentity {
    /// Reads `host-certificate.pem` and `host-key.pem` (0600) in `dir`; makes them, and `dir`, where
    /// missing. Safe against another process doing the same and against a crash half-way.
    ///
    /// # Errors
    /// Where the folder can't be used or holds files that are no certificate and key.
    pub fn load_or_create(dir: &Path) -> Result<Self, IdentityError> {
        Ok(Self { certificate: load_or_create(dir, HOST_FILES, "hythe")? })
    }

    /// Lower-case hex SHA-256 of the certificate's DER: what daemons are told to accept.
    #[must_use]
    pub fn certificate_sha256(&self) -> &str {
        self.certificate.sha256()
    }

    /// The certificate itself.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }
}

/// Makes the certificate of a daemon whose data folder is `dir`, where it has none yet, and says its
/// lower-case hex SHA-256: for a host that sets up a daemon beside itself.
///
/// # Errors
/// As [`Certificate::load_or_create_daemon`].
pub fn prepare_certificate(dir: &Path) -> Result<String, IdentityError> {
    Ok(Certificate::load_or_create_daemon(dir)?.sha256().to_owned())
}

fn load_or_create(dir: &Path, files: [&str; 2], name: &str) -> Result<Certificate, IdentityError> {
    let [certificate_path, key_path] = files.map(|file| dir.join(file));
    let file = |action, path: &Path| {
        let path = path.to_owned();
        move |source| IdentityError::File { action, path, source }
    };
    fs::create_dir_all(dir).map_err(file("making the folder", dir))?;
    let lock_path = dir.join(format!("{}.lock", files[0]));
    let lock = private_file(&lock_path).map_err(file("opening", &lock_path))?;
    lock.lock().map_err(file("locking", &lock_path))?;

    // The certificate is written last, so a key alone is what a crash left: nobody has seen it.
    if !certificate_path.try_exists().map_err(file("reading", &certificate_path))? {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let certificate = rcgen::CertificateParams::new(vec![name.to_owned()])?.self_signed(&key)?;
        write_private(&key_path, key.serialize_pem().as_bytes()).map_err(file("writing", &key_path))?;
        write_private(&certificate_path, certificate.pem().as_bytes())
            .map_err(file("writing", &certificate_path))?;
    }
    let pem = fs::read(&certificate_path).map_err(file("reading", &certificate_path))?;
    let der = CertificateDer::from_pem_slice(&pem)
        .map_err(|_| IdentityError::Malformed { path: certificate_path.clone(), what: "certificate" })?;
    let pem = match fs::read(&key_path) {
        Ok(pem) => pem,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(IdentityError::KeyMissing { certificate: certificate_path, key: key_path });
        }
        Err(error) => return Err(file("reading", &key_path)(error)),
    };
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| IdentityError::Malformed { path: key_path, what: "private key" })?;
    let sha256 = hex::encode(Sha256::digest(&der));
    Ok(Certificate { inner: Arc::new(Inner { der, key, sha256 }) })
}

fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Writes the whole file or nothing, readable by this user only, durably.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    if let Some(parent) = path.parent() {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_certificate_is_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = HostIdentity::load_or_create(dir.path()).unwrap();
        let second = HostIdentity::load_or_create(dir.path()).unwrap();
        assert_eq!(first.certificate_sha256(), second.certificate_sha256());
        assert_eq!(first.certificate_sha256().len(), 64);
        let mode = fs::metadata(dir.path().join("host-key.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_a_crash_left_alone_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("key.pem"), "half a key").unwrap();
        let sha256 = prepare_certificate(dir.path()).unwrap();
        assert_eq!(prepare_certificate(dir.path()).unwrap(), sha256);
    }

    #[test]
    fn a_lost_key_and_a_broken_file_are_said() {
        let dir = tempfile::tempdir().unwrap();
        prepare_certificate(dir.path()).unwrap();
        fs::remove_file(dir.path().join("key.pem")).unwrap();
        let error = prepare_certificate(dir.path()).unwrap_err();
        assert!(matches!(error, IdentityError::KeyMissing { .. }), "{error}");
        fs::write(dir.path().join("certificate.pem"), "no pem").unwrap();
        let error = prepare_certificate(dir.path()).unwrap_err();
        assert!(error.to_string().contains("certificate.pem is not a PEM certificate"), "{error}");
    }
}
