//! A certificate authority of this host's own, for names that no public one would sign, such as `localhost`.
//!
//! Always holds: it can sign only for the names that it was made for, and for loopback addresses (critical
//! `nameConstraints`), so whoever trusts it trusts it for nothing else; its key lies in a file of mode 0600 and signs
//! certificates of 30 days, which exist in memory only. Each host name gets a certificate of its own when it is first
//! asked for: OpenSSL, curl and browsers refuse `*.localhost`, a wildcard right below a top-level name.

use std::collections::HashMap;
use std::fs::Permissions;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use x509_cert::der::Decode;
use x509_cert::ext::pkix::NameConstraints as ReadConstraints;
use x509_cert::ext::pkix::name::GeneralName;

use super::certificate::{Certificate, Names};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// A CA with less left is made anew: browsers would soon refuse what it signs.
const CA_LEAST: Duration = Duration::from_secs(60 * 24 * 60 * 60);
const LEAF_LIFE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The age at which the next leaf is made.
const LEAF_RENEWAL: Duration = Duration::from_secs(20 * 24 * 60 * 60);
/// Names with a certificate in memory; one more and the oldest half goes.
const MOST_LEAVES: usize = 1_024;

/// The authority, and the certificates that it has made since the start.
pub struct DevelopmentCa {
    path: PathBuf,
    is_new: bool,
    /// In lower case.
    domains: Vec<String>,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    /// One key for all leaves: what makes one is a signature.
    leaf_key: KeyPair,
    leaf_signer: Arc<dyn SigningKey>,
    leaves: ArcSwap<HashMap<String, Leaf>>,
    /// One maker at a time.
    making: Mutex<()>,
}

#[derive(Debug, Clone)]
struct Leaf {
    certificate: Arc<Certificate>,
    made: SystemTime,
}

/// Why there is no development CA.
#[derive(Debug, thiserror::Error)]
pub enum DevelopmentCaError {
    #[error("can't {doing} {}", path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the development CA in {} is damaged ({reason}): remove the folder, and a new one is made at the next start",
        folder.display()
    )]
    Damaged { folder: PathBuf, reason: String },
    #[error("{domain:?} can't be a name of the development CA: take a lower-case domain such as localhost")]
    Name { domain: String },
    #[error("the development CA can't make a certificate")]
    Make(#[source] rcgen::Error),
    #[error("no random numbers can be had for the development CA: {0}")]
    Random(getrandom::Error),
    #[error("the TLS library refuses the development CA's key")]
    Library(#[source] rustls::Error),
}

impl From<rcgen::Error> for DevelopmentCaError {
    fn from(error: rcgen::Error) -> Self {
        Self::Make(error)
    }
}

impl std::fmt::Debug for DevelopmentCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DevelopmentCa").field("path", &self.path).field("domains", &self.domains).finish()
    }
}

impl DevelopmentCa {
    /// The authority in `folder` (`ca.pem`, and `ca-key.pem` of mode 0600) for `domains` and all names below
    /// them; `localhost` is always among them. Makes it where there is none, where it is for other domains, or where
    /// less than 60 days are left of its ten years: then it must be trusted anew ([`DevelopmentCa::is_new`]).
    ///
    /// # Errors
    /// Where the folder can't be read or written, or holds something else.
    pub fn open(folder: &Path, domains: &[String]) -> Result<Self, DevelopmentCaError> {
        let mut domains: Vec<String> = domains.to_vec();
        domains.push("localhost".to_owned());
        domains.sort();
        domains.dedup();
        if let Some(domain) = domains.iter().find(|domain| !is_domain(domain)) {
            return Err(DevelopmentCaError::Name { domain: domain.clone() });
        }
        std::fs::create_dir_all(folder).map_err(file("make", folder))?;
        let path = folder.join("ca.pem");
        let key_path = folder.join("ca-key.pem");
        let now = SystemTime::now();
        let found = Stored::read(folder, &path, &key_path)?
            .filter(|stored| stored.domains == domains && stored.not_after > now + CA_LEAST);
        let (certificate, key, is_new) = match found {
            Some(stored) => (stored.certificate, stored.key, false),
            None => {
                let key = KeyPair::generate()?;
                let certificate = ca_params(&domains, &key, now)?.self_signed(&key)?;
                // The key first: a certificate without its key would be taken for damage.
                write(&key_path, key.serialize_pem().as_bytes(), 0o600)?;
                write(&path, certificate.pem().as_bytes(), 0o644)?;
                (certificate.der().clone(), key, true)
            }
        };
        let issuer = Issuer::new(ca_params(&domains, &key, now)?, key);
        let leaf_key = KeyPair::generate()?;
        let leaf_signer = rustls::crypto::ring::sign::any_supported_type(&PrivateKeyDer::Pkcs8(
            PrivatePkcs8KeyDer::from(leaf_key.serialize_der()),
        ))
        .map_err(DevelopmentCaError::Library)?;
        let ca = Self {
            path,
            is_new,
            domains,
            certificate,
            issuer,
            leaf_key,
            leaf_signer,
            leaves: ArcSwap::default(),
            making: Mutex::new(()),
        };
        ca.make(None)?;
        Ok(ca)
    }

    /// The file that a user trusts (PEM).
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it was made now: nobody trusts it yet.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// The domains for which it signs, and for all names below them.
    #[must_use]
    pub fn domains(&self) -> &[String] {
        &self.domains
    }

    /// For clients that name no host: the domains, their wildcards and the loopback addresses.
    pub(super) fn unnamed(&self) -> Option<Arc<Certificate>> {
        self.leaf(None)
    }

    /// For `name` (in lower case), where it is one of its domains or below one.
    pub(super) fn certificate(&self, name: &str) -> Option<Arc<Certificate>> {
        let below = |domain: &String| {
            name.strip_suffix(domain.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.') && rest.len() > 1)
        };
        if self.domains.iter().any(below) && is_domain(name) { self.leaf(Some(name)) } else { None }
    }

    fn leaf(&self, name: Option<&str>) -> Option<Arc<Certificate>> {
        if let Some(certificate) = self.known(name) {
            return Some(certificate);
        }
        let _one = self.making.lock();
        if let Some(certificate) = self.known(name) {
            return Some(certificate);
        }
        match self.make(name) {
            Ok(certificate) => Some(certificate),
            Err(error) => {
                tracing::error!(name, "no certificate could be made: {error}");
                None
            }
        }
    }

    fn known(&self, name: Option<&str>) -> Option<Arc<Certificate>> {
        let leaves = self.leaves.load();
        let leaf = leaves.get(name.unwrap_or_default())?;
        let young = leaf.made.elapsed().is_ok_and(|age| age < LEAF_RENEWAL);
        young.then(|| leaf.certificate.clone())
    }

    /// Makes one and keeps it. Under `making`, or before anybody else sees this.
    fn make(&self, name: Option<&str>) -> Result<Arc<Certificate>, DevelopmentCaError> {
        let now = SystemTime::now();
        let (names, shown) = match name {
            Some(name) => (Names { exact: vec![name.to_owned()], ..Names::default() }, name),
            None => {
                let names = Names {
                    exact: self.domains.clone(),
                    // Right below a top-level name it is refused, by rustls with the whole certificate.
                    wildcard: self.domains.iter().filter(|domain| domain.contains('.')).cloned().collect(),
                    addresses: vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
                };
                (names, "localhost")
            }
        };
        let mut params = CertificateParams::default();
        params.subject_alt_names = alternative_names(&names)?;
        params.distinguished_name = common_name(shown);
        params.serial_number = Some(serial()?);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        // Clocks differ.
        let (from, to) = (now - DAY, now + LEAF_LIFE);
        (params.not_before, params.not_after) = (from.into(), to.into());
        let signed = params.signed_by(&self.leaf_key, &self.issuer)?;
        let chain = vec![signed.der().clone(), self.certificate.clone()];
        let key = CertifiedKey::new(chain, self.leaf_signer.clone());
        let certificate = Arc::new(Certificate::made(key, names, from.into(), to.into()));

        let mut leaves = HashMap::clone(&self.leaves.load());
        if leaves.len() >= MOST_LEAVES {
            let mut ages: Vec<_> = leaves.values().map(|leaf| leaf.made).collect();
            ages.sort();
            let middle = ages[ages.len() / 2];
            leaves.retain(|_, leaf| leaf.made > middle);
        }
        leaves.insert(
            name.unwrap_or_default().to_owned(),
            Leaf { certificate: certificate.clone(), made: now },
        );
        self.leaves.store(Arc::new(leaves));
        Ok(certificate)
    }
}

/// What lies in the folder.
struct Stored {
    certificate: CertificateDer<'static>,
    key: KeyPair,
    domains: Vec<String>,
    not_after: SystemTime,
}

impl Stored {
    /// `None`: nothing is there, or only a key (a start was cut short before its certificate).
    fn read(folder: &Path, path: &Path, key_path: &Path) -> Result<Option<Self>, DevelopmentCaError> {
        let damaged = |reason: String| DevelopmentCaError::Damaged { folder: folder.to_owned(), reason };
        let pem = match std::fs::read(path) {
            Ok(pem) => pem,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(file("read", path)(error)),
        };
        let key = match std::fs::read_to_string(key_path) {
            Ok(key) => key,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(damaged("ca-key.pem is missing".to_owned()));
            }
            Err(error) => return Err(file("read", key_path)(error)),
        };
        let key = KeyPair::from_pem(&key).map_err(|error| damaged(format!("ca-key.pem: {error}")))?;
        let certificate =
            CertificateDer::from_pem_slice(&pem).map_err(|error| damaged(format!("ca.pem: {error}")))?;
        let parsed = x509_cert::Certificate::from_der(&certificate)
            .map_err(|error| damaged(format!("ca.pem: {error}")))?
            .tbs_certificate;
        if parsed.subject_public_key_info.subject_public_key.raw_bytes() != key.public_key_raw() {
            return Err(damaged("ca.pem and ca-key.pem are of different pairs".to_owned()));
        }
        let constraints = parsed.get::<ReadConstraints>().ok().flatten();
        let permitted = constraints.and_then(|(_, constraints)| constraints.permitted_subtrees);
        let mut domains = Vec::new();
        for tree in permitted.into_iter().flatten() {
            if let GeneralName::DnsName(name) = tree.base {
                domains.push(name.as_str().to_owned());
            }
        }
        domains.sort();
        let not_after = SystemTime::UNIX_EPOCH + parsed.validity.not_after.to_unix_duration();
        Ok(Some(Self { certificate: certificate.clone(), key, domains, not_after }))
    }
}

fn ca_params(
    domains: &[String],
    key: &KeyPair,
    now: SystemTime,
) -> Result<CertificateParams, DevelopmentCaError> {
    let mut params = CertificateParams::default();
    // A name of its own: trust stores mix up authorities of one name.
    let id: String = params.key_identifier(key).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name = common_name(&format!("Hythe development CA {id}"));
    params.serial_number = Some(serial()?);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let address =
        |address: IpAddr, prefix| GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(address, prefix));
    let mut permitted: Vec<_> = domains.iter().cloned().map(GeneralSubtree::DnsName).collect();
    permitted.push(address(Ipv4Addr::LOCALHOST.into(), 32));
    permitted.push(address(Ipv6Addr::LOCALHOST.into(), 128));
    params.name_constraints =
        Some(NameConstraints { permitted_subtrees: permitted, excluded_subtrees: Vec::new() });
    (params.not_before, params.not_after) = ((now - DAY).into(), (now + CA_LIFE).into());
    Ok(params)
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    // The field holds 64 characters (X.520); names of hosts are read from the alternative names.
    distinguished.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    distinguished
}

fn alternative_names(names: &Names) -> Result<Vec<SanType>, rcgen::Error> {
    let exact = names.exact.iter().cloned();
    let wildcard = names.wildcard.iter().map(|name| format!("*.{name}"));
    exact
        .chain(wildcard)
        .map(|name| Ok(SanType::DnsName(name.try_into()?)))
        .chain(names.addresses.iter().map(|address| Ok(SanType::IpAddress(*address))))
        .collect()
}

/// Random: browsers refuse two certificates of one authority with one number.
fn serial() -> Result<SerialNumber, DevelopmentCaError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(DevelopmentCaError::Random)?;
    // Positive, and never zero.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn is_domain(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// As a whole or not at all.
fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), DevelopmentCaError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let written = || {
        // Of mode 0600 from its first moment.
        let mut new = tempfile::NamedTempFile::new_in(folder)?;
        new.write_all(content)?;
        new.as_file().set_permissions(Permissions::from_mode(mode))?;
        new.as_file().sync_all()?;
        new.persist(path)?;
        Ok(())
    };
    written().map_err(file("write", path))
}

fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DevelopmentCaError {
    let path = path.to_owned();
    move |source| DevelopmentCaError::File { doing, path, source }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    fn open(folder: &Path, domains: &[&str]) -> Result<DevelopmentCa, DevelopmentCaError> {
        DevelopmentCa::open(folder, &domains.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let ca = open(folder.path(), &[]).unwrap();
        assert!(ca.is_new());
        let first = std::fs::read(ca.path()).unwrap();
        let mode = |name| std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("ca-key.pem"), mode("ca.pem")), (0o600, 0o644));
        let again = open(folder.path(), &["localhost"]).unwrap();
        assert!(!again.is_new());
        assert_eq!(std::fs::read(again.path()).unwrap(), first);
        let other = open(folder.path(), &["apps.test"]).unwrap();
        assert!(other.is_new(), "it could not sign for apps.test before");
    }

    #[test]
    fn signs_for_its_names_only_and_each_once() {
        let folder = tempfile::tempdir().unwrap();
        let ca = open(folder.path(), &["apps.test"]).unwrap();
        for name in ["localhost", "a.localhost", "b.a.apps.test", "apps.test"] {
            let certificate = ca.certificate(name).unwrap();
            assert!(certificate.covers(name), "{name}");
            assert!((certificate.not_after() - certificate.not_before()).num_days() < 398);
            assert!(Arc::ptr_eq(&certificate, &ca.certificate(name).unwrap()));
        }
        for name in [
            "test",
            "xlocalhost",
            ".localhost",
            "a..localhost",
            "example.com",
            "A.localhost",
            "*.localhost",
            "",
        ] {
            assert!(ca.certificate(name).is_none(), "{name}");
        }
        let unnamed = ca.unnamed().unwrap();
        for name in ["127.0.0.1", "::1", "localhost", "x.apps.test"] {
            assert!(unnamed.covers(name), "{name}");
        }
        assert!(!unnamed.covers("127.0.0.2"));
    }

    #[test]
    fn names_in_memory_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let ca = open(folder.path(), &[]).unwrap();
        for number in 0..MOST_LEAVES + 10 {
            assert!(ca.certificate(&format!("n{number}.localhost")).is_some());
        }
        assert!(ca.leaves.load().len() <= MOST_LEAVES);
        assert!(ca.unnamed().is_some());
    }

    #[test]
    fn damage_is_named_with_what_to_do() {
        let refused = |damage: &dyn Fn(&Path), expected: &str| {
            let folder = tempfile::tempdir().unwrap();
            open(folder.path(), &[]).unwrap();
            damage(folder.path());
            let message = open(folder.path(), &[]).unwrap_err().to_string();
            assert!(message.contains(expected) && message.contains("remove the folder"), "{message}");
        };
        refused(&|at| std::fs::remove_file(at.join("ca-key.pem")).unwrap(), "ca-key.pem is missing");
        refused(&|at| std::fs::write(at.join("ca-key.pem"), "x").unwrap(), "ca-key.pem:");
        refused(&|at| std::fs::write(at.join("ca.pem"), "x").unwrap(), "ca.pem:");
        let other = KeyPair::generate().unwrap().serialize_pem();
        refused(&|at| std::fs::write(at.join("ca-key.pem"), &other).unwrap(), "different pairs");
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(open(folder.path(), &["Not A Name"]), Err(DevelopmentCaError::Name { .. })));
        // Cut short between the key and the certificate: made anew.
        open(folder.path(), &[]).unwrap();
        std::fs::remove_file(folder.path().join("ca.pem")).unwrap();
        assert!(open(folder.path(), &[]).unwrap().is_new());
    }

    /// What a stricter client than ours says of it.
    #[test]
    fn is_accepted_by_openssl() {
        let Ok(version) = std::process::Command::new("openssl").arg("version").output() else { return };
        assert!(version.status.success());
        let folder = tempfile::tempdir().unwrap();
        let ca = open(folder.path(), &["apps.test"]).unwrap();
        let leaf = folder.path().join("leaf.pem");
        let verify = |certificate: &Certificate, arguments: &[&str]| {
            std::fs::write(&leaf, pem(&certificate.key().cert[0])).unwrap();
            let output = std::process::Command::new("openssl")
                .args(["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile"])
                .arg(ca.path())
                .args(arguments)
                .arg(&leaf)
                .output()
                .unwrap();
            (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        let certificate = ca.certificate("a.localhost").unwrap();
        assert_eq!(verify(&certificate, &["-verify_hostname", "a.localhost"]), (true, String::new()));
        assert!(!verify(&certificate, &["-verify_hostname", "b.localhost"]).0);
        assert_eq!(verify(&ca.unnamed().unwrap(), &["-verify_ip", "127.0.0.1"]), (true, String::new()));

        // Somebody has the key: it signs for nothing else all the same.
        let mut params = CertificateParams::new(vec!["example.com".to_owned()]).unwrap();
        params.serial_number = Some(serial().unwrap());
        params.use_authority_key_identifier_extension = true;
        params.not_after = (SystemTime::now() + DAY).into();
        let stolen = params.signed_by(&ca.leaf_key, &ca.issuer).unwrap();
        let key = CertifiedKey::new(vec![stolen.der().clone()], ca.leaf_signer.clone());
        let now = chrono::Utc::now();
        let (ok, message) = verify(&Certificate::made(key, Names::default(), now, now), &[]);
        assert!(!ok && message.contains("permitted subtree violation"), "{message}");
    }

    fn pem(der: &CertificateDer<'_>) -> String {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let lines: Vec<_> =
            text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    }
}
