//! Keys at rest: machines' shared keys are encrypted under the host's master key.
//!
//! Always holds: a ciphertext is bound to its machine (the id is associated data), bears the id of the key
//! that made it, and no key is ever printed. The cipher is XChaCha20-Poly1305 with a random nonce of 24
//! bytes in front (draft-irtf-cfrg-xchacha-03).

use std::fmt;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use model::MachineId;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::error::StoreError;

/// The environment variable that holds the master key: base64 of 32 bytes.
pub const MASTER_KEY_VARIABLE: &str = "HYTHE_MASTER_KEY";
/// The file in the data directory that holds it otherwise, mode 0600.
pub const MASTER_KEY_FILE: &str = "master.key";

const NONCE: usize = 24;

/// Why there is no master key.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    #[error(
        "{place} does not hold a master key: expected base64 of 32 bytes, as `openssl rand -base64 32` prints it"
    )]
    Malformed { place: String },
    #[error("others may read the master key {path}: `chmod 600 {path}`, and consider it known")]
    Exposed { path: PathBuf },
    #[error("the master key {path} can't be {verb}")]
    Io {
        path: PathBuf,
        verb: &'static str,
        #[source]
        source: std::io::Error,
    },
}

/// The key that encrypts keys.
#[derive(Clone)]
pub struct MasterKey {
    key: Zeroizing<[u8; 32]>,
    id: String,
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl MasterKey {
    /// The key of these bytes.
    #[must_use]
    pub fn from_bytes(key: [u8; 32]) -> Self {
        let id = hex::encode(&Sha256::digest(key)[..4]);
        Self { key: Zeroizing::new(key), id }
    }

    /// The key of this text.
    ///
    /// # Errors
    /// Where it is not base64 of 32 bytes. `place` says in the message where it stood.
    pub fn from_base64(text: &str, place: &str) -> Result<Self, MasterKeyError> {
        let malformed = || MasterKeyError::Malformed { place: place.to_owned() };
        let bytes = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| malformed())?);
        Ok(Self::from_bytes(<[u8; 32]>::try_from(&bytes[..]).map_err(|_| malformed())?))
    }

    /// The key of the variable [`MASTER_KEY_VARIABLE`] where it is set, else
    /// [`load_or_create`](Self::load_or_create).
    ///
    /// # Errors
    /// See [`MasterKeyError`].
    pub fn from_environment_or_file(dir: &Path) -> Result<Self, MasterKeyError> {
        match std::env::var(MASTER_KEY_VARIABLE) {
            Ok(text) => {
                Self::from_base64(&Zeroizing::new(text), &format!("the variable {MASTER_KEY_VARIABLE}"))
            }
            Err(std::env::VarError::NotPresent) => Self::load_or_create(dir),
            Err(std::env::VarError::NotUnicode(_)) => {
                Err(MasterKeyError::Malformed { place: format!("the variable {MASTER_KEY_VARIABLE}") })
            }
        }
    }

    /// The key of [`MASTER_KEY_FILE`] in this folder, made at the first time. Of several that make it at
    /// once, all get the same.
    ///
    /// # Errors
    /// Where the file is malformed, readable by others, or can't be read or made.
    pub fn load_or_create(dir: &Path) -> Result<Self, MasterKeyError> {
        let path = dir.join(MASTER_KEY_FILE);
        let io = |verb| {
            let path = path.clone();
            move |source| MasterKeyError::Io { path, verb, source }
        };
        match std::fs::symlink_metadata(&path) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                create(dir, &path).map_err(io("made"))?
            }
            Err(error) => return Err(io("read")(error)),
        }
        let metadata = std::fs::metadata(&path).map_err(io("read"))?;
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(MasterKeyError::Exposed { path });
        }
        let text = Zeroizing::new(std::fs::read_to_string(&path).map_err(io("read"))?);
        Self::from_base64(&text, &path.display().to_string())
    }

    /// Names the key without giving it away: the first 8 hex digits of its SHA-256.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.key).into())
    }

    pub(crate) fn seal(&self, machine: MachineId, key: &SharedKey) -> Result<Vec<u8>, StoreError> {
        let mut nonce = [0; NONCE];
        random(&mut nonce)?;
        let machine = machine.to_string();
        let payload = Payload { msg: key.as_bytes(), aad: machine.as_bytes() };
        let ciphertext = self.cipher().encrypt(&XNonce::from(nonce), payload).map_err(|_| {
            StoreError::Configuration { message: "the machine's key can't be encrypted".to_owned() }
        })?;
        Ok([&nonce[..], &ciphertext].concat())
    }

    pub(crate) fn open(
        &self,
        machine: MachineId,
        key_id: &str,
        sealed: &[u8],
    ) -> Result<SharedKey, StoreError> {
        if key_id != self.id {
            return Err(StoreError::Configuration {
                message: format!(
                    "the key of {machine} is encrypted under the master key {key_id}, but this host has {}: give it \
                     that one in {MASTER_KEY_VARIABLE} or as {MASTER_KEY_FILE} in its data directory, or remove the \
                     machine and register it again",
                    self.id
                ),
            });
        }
        let damaged = || StoreError::Configuration {
            message: format!(
                "the key of {machine} is damaged or another machine's: remove it and register it again"
            ),
        };
        let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE>().ok_or_else(damaged)?;
        let aad = machine.to_string();
        let payload = Payload { msg: ciphertext, aad: aad.as_bytes() };
        let key =
            Zeroizing::new(self.cipher().decrypt(&XNonce::from(*nonce), payload).map_err(|_| damaged())?);
        Ok(SharedKey(Zeroizing::new(<[u8; 32]>::try_from(&key[..]).map_err(|_| damaged())?)))
    }
}

/// Writes the file beside, then links it: it is whole when it is there, and nobody's is overwritten.
fn create(dir: &Path, path: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let mut key = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *key).map_err(std::io::Error::other)?;
    let text = Zeroizing::new(STANDARD.encode(*key) + "\n");
    let temporary = dir.join(format!(".{MASTER_KEY_FILE}.{}", uuid::Uuid::new_v4().simple()));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let made = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| match std::fs::hard_link(&temporary, path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            result => result,
        })
        .and_then(|()| std::fs::File::open(dir)?.sync_all());
    let removed = std::fs::remove_file(&temporary);
    made.and(removed)
}

pub(crate) fn random(bytes: &mut [u8]) -> Result<(), StoreError> {
    getrandom::fill(bytes).map_err(|error| StoreError::Configuration {
        message: format!("the operating system gives no random bytes: {error}"),
    })
}

/// A secret for people to copy: the prefix and 48 hex digits of randomness.
pub(crate) fn random_token(prefix: &str) -> Result<String, StoreError> {
    let mut bytes = Zeroizing::new([0; 24]);
    random(&mut *bytes)?;
    Ok(format!("{prefix}{}", hex::encode(*bytes)))
}

pub(crate) fn sha256(text: &str) -> Vec<u8> {
    Sha256::digest(text.as_bytes()).to_vec()
}

/// The 32 bytes that a machine's daemon and the host share. Cleared from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedKey(Zeroizing<[u8; 32]>);

impl SharedKey {
    pub(crate) fn generate() -> Result<Self, StoreError> {
        let mut key = Zeroizing::new([0; 32]);
        random(&mut *key)?;
        Ok(Self(key))
    }

    /// The key itself.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key in lower-case hex, as the daemon keeps it.
    #[must_use]
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(*self.0))
    }
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedKey(..)")
    }
}
