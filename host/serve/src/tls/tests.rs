//! With real clients: rustls', and OpenSSL's and curl's where the machine has them.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use rcgen::{CertificateParams, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, ClientConfig, DigitallySignedStruct, HandshakeKind, RootCertStore, SignatureScheme,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::*;

/// A moment that no test reaches.
pub(super) fn far() -> DateTime<Utc> {
    Utc::now() + TimeDelta::days(300)
}

/// Certificates in a folder that goes with it.
pub(super) struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    pub(super) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A self-signed one for `names` as `{file}.pem` and `{file}-key.pem`.
    pub(super) fn write(&self, file: &str, names: &[&str], not_after: DateTime<Utc>) -> CertificateFiles {
        self.write_between(file, names, not_after - TimeDelta::days(400), not_after)
    }

    fn write_between(
        &self,
        file: &str,
        names: &[&str],
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> CertificateFiles {
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
        (params.not_before, params.not_after) = (time(from), time(to));
        let certificate = params.self_signed(&key).unwrap();
        let files = CertificateFiles {
            certificate: self.path().join(format!("{file}.pem")),
            key: self.path().join(format!("{file}-key.pem")),
            default: false,
        };
        // As tools do it: another file in its place.
        put(&files.certificate, &certificate.pem());
        put(&files.key, &key.serialize_pem());
        files
    }

    pub(super) fn tls(&self, all: &[&CertificateFiles]) -> Arc<Tls> {
        self.try_tls(all).unwrap()
    }

    fn try_tls(&self, all: &[&CertificateFiles]) -> Result<Arc<Tls>, TlsError> {
        let certificates = all.iter().map(|&files| files.clone()).collect();
        Tls::new(TlsSettings { certificates, ..TlsSettings::default() })
    }
}

fn put(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::rename(new, path).unwrap();
}

fn time<T: From<std::time::SystemTime>>(at: DateTime<Utc>) -> T {
    std::time::SystemTime::from(at).into()
}

/// Answers each line with itself; each connection says first what it was chosen by.
struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(tls: Arc<Tls>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let tls = tls.clone();
                tokio::spawn(async move {
                    let Ok(mut accepted) = tls.accept(stream).await else { return };
                    let hello = format!(
                        "name={} alpn={} own={}\n",
                        accepted.server_name.as_deref().unwrap_or("-"),
                        String::from_utf8_lossy(accepted.alpn().unwrap_or(b"-")),
                        accepted.covers("own.test"),
                    );
                    let _ = accepted.stream.write_all(hello.as_bytes()).await;
                    let mut buffer = [0; 1024];
                    while let Ok(read @ 1..) = accepted.stream.read(&mut buffer).await {
                        let _ = accepted.stream.write_all(&buffer[..read]).await;
                    }
                    let _ = accepted.stream.shutdown().await;
                });
            }
        });
        Self { address, task }
    }

    async fn connect(&self, client: &ClientConfig, name: &str) -> io::Result<(TlsStream<TcpStream>, String)> {
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut stream = TlsConnector::from(Arc::new(client.clone())).connect(name, stream).await?;
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            line.push(stream.read_u8().await?);
        }
        Ok((stream, String::from_utf8(line).unwrap().trim().to_owned()))
    }

    /// The names of the certificate that a client of `name` is shown.
    async fn shown(&self, name: &str) -> Vec<String> {
        let (stream, _) = self.connect(&trusting(), name).await.unwrap();
        shown(&stream)
    }

    async fn echoes(stream: &mut TlsStream<TcpStream>) {
        stream.write_all(b"ping").await.unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"ping");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn shown(stream: &TlsStream<TcpStream>) -> Vec<String> {
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    let certificate = x509_cert::Certificate::from_der(&chain[0]).unwrap();
    let (_, names) = certificate.tbs_certificate.get::<SubjectAltName>().unwrap().unwrap();
    let name = |name| match name {
        GeneralName::DnsName(name) => name.as_str().to_owned(),
        other => format!("{other:?}"),
    };
    names.0.into_iter().map(name).collect()
}

/// Believes every certificate: those of these tests sign themselves.
#[derive(Debug)]
struct Trusting(Arc<CryptoProvider>);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn trusting() -> ClientConfig {
    client(&[&rustls::version::TLS13, &rustls::version::TLS12])
}

fn client(versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting(provider)))
        .with_no_client_auth()
}

fn alert(error: &io::Error) -> AlertDescription {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        other => panic!("no alert: {other:?}"),
    }
}

#[tokio::test]
async fn the_most_specific_name_answers() {
    let files = Files::new();
    let exact = files.write("exact", &["a.apps.test", "own.test"], far());
    let wildcard = files.write("wildcard", &["*.apps.test"], far());
    let deep = files.write("deep", &["*.a.apps.test"], far());
    let server = Server::start(files.tls(&[&wildcard, &deep, &exact])).await;
    assert_eq!(server.shown("a.apps.test").await, ["a.apps.test", "own.test"]);
    assert_eq!(server.shown("A.APPS.TEST").await, ["a.apps.test", "own.test"]);
    assert_eq!(server.shown("b.apps.test").await, ["*.apps.test"]);
    assert_eq!(server.shown("x.a.apps.test").await, ["*.a.apps.test"]);
    for name in ["apps.test", "x.b.apps.test", "else.test", "127.0.0.1"] {
        let error = server.connect(&trusting(), name).await.unwrap_err();
        assert_eq!(alert(&error), AlertDescription::UnrecognisedName, "{name}");
    }
    let (_, hello) = server.connect(&trusting(), "a.apps.test").await.unwrap();
    assert_eq!(hello, "name=a.apps.test alpn=- own=true");
    let (_, hello) = server.connect(&trusting(), "b.apps.test").await.unwrap();
    assert_eq!(hello, "name=b.apps.test alpn=- own=false");
}

#[tokio::test]
async fn the_default_answers_the_rest() {
    let files = Files::new();
    let other = files.write("other", &["other.test"], far());
    let mut default = files.write("default", &["default.test"], far());
    default.default = true;
    let server = Server::start(files.tls(&[&other, &default])).await;
    assert_eq!(server.shown("other.test").await, ["other.test"]);
    // An address is no name: the client sends none.
    for name in ["else.test", "127.0.0.1"] {
        assert_eq!(server.shown(name).await, ["default.test"], "{name}");
    }
}

#[tokio::test]
async fn protocols_are_agreed_on() {
    let files = Files::new();
    let pair = files.write("a", &["own.test"], far());
    let server = Server::start(files.tls(&[&pair])).await;
    for (offered, chosen) in
        [(vec!["http/1.1", "h2"], "h2"), (vec!["http/1.1"], "http/1.1"), (vec!["x", "h2"], "h2")]
    {
        let mut client = trusting();
        client.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let (_, hello) = server.connect(&client, "own.test").await.unwrap();
        assert_eq!(hello, format!("name=own.test alpn={chosen} own=true"));
    }
    let mut client = trusting();
    client.alpn_protocols = vec![b"spdy/3".to_vec()];
    let error = server.connect(&client, "own.test").await.unwrap_err();
    assert_eq!(alert(&error), AlertDescription::NoApplicationProtocol);
}

#[tokio::test]
async fn sessions_are_resumed_by_tickets() {
    let files = Files::new();
    let pair = files.write("a", &["own.test"], far());
    let tls = files.tls(&[&pair]);
    // Two servers that share one `Tls`, as worker threads do.
    let (one, other) = (Server::start(tls.clone()).await, Server::start(tls.clone()).await);
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let client = client(&[version]);
        let (mut first, _) = one.connect(&client, "own.test").await.unwrap();
        Server::echoes(&mut first).await;
        assert_ne!(first.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
        let (mut second, hello) = other.connect(&client, "own.test").await.unwrap();
        Server::echoes(&mut second).await;
        assert_eq!(second.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed), "{version:?}");
        assert_eq!(hello, "name=own.test alpn=- own=true");
    }
}

#[tokio::test]
async fn a_new_certificate_disturbs_no_connection() {
    let files = Files::new();
    let pair = files.write("a", &["own.test"], far());
    let tls = files.tls(&[&pair]);
    let server = Server::start(tls.clone()).await;
    let (mut open, _) = server.connect(&trusting(), "own.test").await.unwrap();
    for round in 0..3 {
        files.write("a", &["own.test", &format!("round-{round}.test")], far());
        let report = tls.reload();
        assert_eq!(report.loaded, std::slice::from_ref(&pair.certificate));
        assert!(report.failed.is_empty() && report.warnings.is_empty(), "{report:?}");
        assert_eq!(server.shown("own.test").await, ["own.test", &format!("round-{round}.test")]);
        Server::echoes(&mut open).await;
    }
    assert_eq!(shown(&open), ["own.test"]);
    let same = tls.reload();
    assert!(same.loaded.is_empty() && same.failed.is_empty(), "{same:?}");
}

/// What a reload that must change nothing says.
fn kept(tls: &Tls, expected: &str) {
    let report = tls.reload();
    let [error] = report.failed.as_slice() else { panic!("{report:?}") };
    assert!(error.to_string().contains(expected), "{error}");
    assert!(tls.certificate_for(Some("own.test")).is_some());
    assert!(tls.certificate_for(Some("other.test")).is_some());
}

#[tokio::test]
async fn a_bad_certificate_leaves_the_old_one() {
    let files = Files::new();
    let pair = files.write("a", &["own.test"], far());
    let other = files.write("b", &["other.test"], far());
    let tls = files.tls(&[&pair, &other]);
    let server = Server::start(tls.clone()).await;
    let good = std::fs::read_to_string(&pair.certificate).unwrap();
    let good_key = std::fs::read_to_string(&pair.key).unwrap();

    std::fs::remove_file(&pair.certificate).unwrap();
    kept(&tls, "can't read");
    put(&pair.certificate, "");
    kept(&tls, "has no certificate");
    put(&pair.certificate, "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n");
    kept(&tls, "no good PEM");
    put(&pair.certificate, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    kept(&tls, "the first certificate in");
    put(&pair.certificate, &good[..good.len() / 2]);
    kept(&tls, "no good PEM");
    put(&pair.certificate, &std::fs::read_to_string(&other.certificate).unwrap());
    kept(&tls, "does not fit the key");
    put(&pair.certificate, &good);
    std::fs::remove_file(&pair.key).unwrap();
    kept(&tls, "can't read");
    put(&pair.key, &good);
    kept(&tls, "no private key");
    put(&pair.key, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    kept(&tls, "passphrase");
    put(&pair.key, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    kept(&tls, "can't be used");
    put(&pair.key, &good_key);
    files.write("a", &["own.test"], Utc::now() - TimeDelta::days(1));
    kept(&tls, "has expired at");
    files.write_between("a", &["own.test"], Utc::now() + TimeDelta::days(1), far());
    kept(&tls, "not valid before");
    files.write("a", &[], far());
    kept(&tls, "names no host");
    assert_eq!(server.shown("own.test").await, ["own.test"]);
    assert_eq!(server.shown("other.test").await, ["other.test"]);
    files.write("a", &["own.test", "new.test"], far());
    assert!(tls.reload().failed.is_empty());
    assert_eq!(server.shown("own.test").await, ["own.test", "new.test"]);
}

#[test]
fn a_bad_certificate_is_refused_at_the_start() {
    let files = Files::new();
    let refused = |pair: &CertificateFiles, expected: &[&str]| {
        let message = files.try_tls(&[pair]).unwrap_err().to_string();
        for part in expected {
            assert!(message.contains(part), "{message}");
        }
    };
    let ended = Utc::now() - TimeDelta::days(2);
    let date = ended.format("%Y-%m-%d").to_string();
    refused(&files.write("old", &["a.test"], ended), &["old.pem", "has expired at", &date, "renew it"]);
    let begins = Utc::now() + TimeDelta::days(2);
    refused(&files.write_between("early", &["a.test"], begins, far()), &["early.pem", "not valid before"]);
    let (one, other) = (files.write("one", &["a.test"], far()), files.write("other", &["b.test"], far()));
    let mixed = CertificateFiles { key: other.key, ..one.clone() };
    refused(&mixed, &["one.pem", "does not fit the key in", "other-key.pem"]);
    let missing = CertificateFiles { certificate: PathBuf::from("/nowhere/a.pem"), ..one };
    refused(&missing, &["can't read /nowhere/a.pem", "No such file"]);
    assert!(matches!(files.try_tls(&[]), Err(TlsError::Nothing)));
}

#[test]
fn of_two_certificates_for_a_name_the_later_one_answers() {
    let files = Files::new();
    let short = files.write("short", &["a.test", "*.b.test"], Utc::now() + TimeDelta::days(20));
    let long = files.write("long", &["a.test", "*.b.test", "c.test"], far());
    for order in [[&short, &long], [&long, &short]] {
        let tls = files.tls(&order);
        for name in ["a.test", "x.b.test", "c.test"] {
            assert_eq!(tls.certificate_for(Some(name)).unwrap().path(), Some(long.certificate.as_path()));
        }
        let warnings: Vec<_> = tls.reload().warnings.iter().map(ToString::to_string).collect();
        assert_eq!(warnings.len(), 2);
        assert!(warnings[0].starts_with("two certificates have the name a.test: "), "{warnings:?}");
        assert!(warnings[0].contains("long.pem is served"), "{warnings:?}");
        assert!(warnings[1].contains("*.b.test"), "{warnings:?}");
    }
}

#[test]
fn a_key_that_everybody_can_read_is_warned_of() {
    let files = Files::new();
    let pair = files.write("a", &["a.test"], far());
    std::fs::set_permissions(&pair.key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let other = files.write("b", &["b.test"], far());
    let tls = files.tls(&[&other]);
    let settings = TlsSettings { certificates: vec![pair.clone()], ..TlsSettings::default() };
    let report = tls.replace(settings).unwrap();
    assert_eq!(report.warnings, [CertificateWarning::KeyReadableByOthers { key: pair.key }]);
}

#[test]
fn other_settings_are_taken_whole_or_not_at_all() {
    let files = Files::new();
    let old = files.write("old", &["old.test"], far());
    let new = files.write("new", &["new.test"], far());
    let tls = files.tls(&[&old]);
    let settings = |all: &[&CertificateFiles]| TlsSettings {
        certificates: all.iter().map(|&files| files.clone()).collect(),
        ..TlsSettings::default()
    };
    let missing = CertificateFiles { certificate: files.path().join("none.pem"), ..new.clone() };
    assert!(matches!(tls.replace(settings(&[&missing])), Err(TlsError::Certificate(_))));
    assert!(matches!(tls.replace(settings(&[])), Err(TlsError::Nothing)));
    assert!(tls.certificate_for(Some("old.test")).is_some());
    let report = tls.replace(settings(&[&new])).unwrap();
    assert_eq!(report.loaded, [new.certificate]);
    assert!(
        tls.certificate_for(Some("new.test")).is_some() && tls.certificate_for(Some("old.test")).is_none()
    );
}

#[tokio::test]
async fn the_development_ca_answers_its_names_to_clients_that_trust_it() {
    let files = Files::new();
    let own = files.write("own", &["special.localhost"], far());
    let ca = Arc::new(DevelopmentCa::open(&files.path().join("dev-ca"), &["apps.test".to_owned()]).unwrap());
    let tls = Tls::new(TlsSettings {
        certificates: vec![own],
        development: Some(ca.clone()),
        ..TlsSettings::default()
    });
    let server = Server::start(tls.unwrap()).await;
    let mut roots = RootCertStore::empty();
    let pem = std::fs::read(ca.path()).unwrap();
    roots.add(rustls::pki_types::pem::PemObject::from_pem_slice(&pem).unwrap()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    for name in ["localhost", "a.localhost", "a--b.apps.test", "x.y.apps.test", "127.0.0.1"] {
        let (mut stream, _) = server.connect(&client, name).await.unwrap();
        Server::echoes(&mut stream).await;
    }
    assert_eq!(server.shown("a.localhost").await, ["a.localhost"]);
    assert_eq!(server.shown("special.localhost").await, ["special.localhost"], "files come first");
    let error = server.connect(&client, "example.com").await.unwrap_err();
    assert_eq!(alert(&error), AlertDescription::UnrecognisedName);
}

/// Runs a client beside the server; `None` where the machine has no such program.
async fn run(program: &str, arguments: &[&str]) -> Option<(bool, String)> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().ok()?;
    let text = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

#[tokio::test]
async fn openssl_agrees_on_versions_and_suites() {
    let files = Files::new();
    let pair = files.write("a", &["own.test"], far());
    let server = Server::start(files.tls(&[&pair])).await;
    let address = server.address.to_string();
    let connect = async |more: &[&str]| {
        let base = ["s_client", "-connect", &address, "-servername", "own.test"];
        run("openssl", &[&base[..], more].concat()).await
    };
    let Some((ok, text)) = connect(&["-tls1_3"]).await else { return };
    assert!(ok && text.contains("TLSv1.3"), "{text}");
    for suite in
        ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"]
    {
        let (ok, text) = connect(&["-tls1_2", "-cipher", suite]).await.unwrap();
        assert!(ok && text.contains(suite), "{text}");
    }
    for refused in [
        &["-tls1_1"][..],
        &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"],
        &["-tls1_2", "-cipher", "AES128-GCM-SHA256"],
        &["-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256"],
    ] {
        let (ok, text) = connect(refused).await.unwrap();
        assert!(!ok, "{refused:?}: {text}");
    }
}

#[tokio::test]
async fn curl_trusts_the_development_ca() {
    let files = Files::new();
    let ca = Arc::new(DevelopmentCa::open(&files.path().join("dev-ca"), &[]).unwrap());
    let tls = Tls::new(TlsSettings { development: Some(ca.clone()), ..TlsSettings::default() }).unwrap();
    let server = Server::start(tls).await;
    let port = server.address.port();
    let pem = ca.path().to_str().unwrap();
    let resolve = format!("shop.localhost:{port}:127.0.0.1");
    for host in ["shop.localhost", "127.0.0.1"] {
        let url = format!("https://{host}:{port}/");
        // The server speaks no HTTP: that curl calls its first line HTTP/0.9 shows that TLS was fine.
        let arguments = ["-sv", "--http0.9", "--max-time", "1", "--cacert", pem, "--resolve", &resolve, &url];
        let Some((_, text)) = run("curl", &arguments).await else { return };
        assert!(text.contains("SSL certificate verify ok"), "{text}");
    }
    let arguments = ["-sv", "--resolve", &resolve, &format!("https://shop.localhost:{port}/")];
    let (ok, text) = run("curl", &arguments).await.unwrap();
    assert!(!ok && text.contains("certificate"), "{text}");
}

#[tokio::test]
async fn bytes_that_are_no_handshake_end_the_connection() {
    let files = Files::new();
    let tls = files.tls(&[&files.write("a", &["own.test"], far())]);
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"", &[0x16, 3, 1, 0xff, 0xff, 1], &[0xff; 100]] {
        let (mut client, server) = tokio::io::duplex(4096);
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        assert!(tls.accept(server).await.is_err(), "{bytes:?}");
    }
}
