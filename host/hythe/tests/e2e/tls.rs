//! TLS as users meet it: the development CA, certificates from files, and what is wrong with them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rcgen::{CertificateParams, KeyPair};
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use test_kit::host::{HostOptions, TestHost};
use test_kit::process::{eventually, program};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::worlds::World;

const HOST: &str = "app.localhost";

/// A connection that trusts one certificate.
struct Https(BufReader<TlsStream<TcpStream>>);

impl Https {
    async fn connect(host: &TestHost, name: &str, trusted: &Path) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(trusted).map_err(|error| anyhow::anyhow!("{error}"))?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(host.https).await?;
        let name = ServerName::try_from(name.to_owned())?;
        Ok(Self(BufReader::new(TlsConnector::from(Arc::new(client)).connect(name, stream).await?)))
    }

    /// One request on this connection; the status.
    async fn get(&mut self, name: &str, path: &str) -> Result<u16> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {name}\r\n\r\n");
        self.0.write_all(request.as_bytes()).await?;
        let (mut line, mut status, mut length) = (String::new(), None, 0);
        loop {
            line.clear();
            ensure!(self.0.read_line(&mut line).await? > 0, "the connection was closed");
            let lower = line.trim_end().to_ascii_lowercase();
            if lower.is_empty() {
                break;
            }
            if let Some(rest) = lower.strip_prefix("http/1.1 ") {
                status = rest.split(' ').next().and_then(|code| code.parse().ok());
            }
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await?;
        status.context("no status")
    }

    /// The certificate that was shown, in DER.
    fn shown(&self) -> Vec<u8> {
        let chain = self.0.get_ref().get_ref().1.peer_certificates();
        chain.and_then(<[_]>::first).map(|first| first.to_vec()).unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn https_by_the_development_ca() -> Result<()> {
    let world = World::new("process", HostOptions::default()).await?;
    let deployment = world.deploy().await?;
    world.host.wait(deployment.id, "primary", |deployment| deployment.is_primary).await?;
    let ca = world.host.data_dir().join("dev-ca/ca.pem");
    let mut client = Https::connect(&world.host, HOST, &ca).await?;
    eventually("the project by TLS", async || Ok((client.get(HOST, "/healthz").await? == 200).then_some(())))
        .await?;

    // The commands that users type.
    let trust = |more: &[&str]| -> Result<String> {
        let mut command = Command::new(program("hythe")?);
        let output = command.args(["trust", "--data-dir"]).arg(world.host.data_dir()).args(more).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    ensure!(trust(&["--path"])?.trim() == ca.to_string_lossy());
    let told = trust(&[])?;
    for part in
        ["Debian", "Fedora", "macOS", "Firefox", "update-ca-certificates", "certutil", &ca.to_string_lossy()]
    {
        ensure!(told.contains(part), "{part} is missing in: {told}");
    }
    let url = format!("https://{HOST}:{}/healthz", world.host.https.port());
    let resolve = format!("{HOST}:{}:127.0.0.1", world.host.https.port());
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--resolve", &resolve, "--cacert"]).arg(&ca).arg(&url);
    match tokio::task::spawn_blocking(move || curl.output()).await? {
        Ok(output) => ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(_) => eprintln!("skipped: this machine has no curl"),
    }
    // Another name is no host of this one's, and has no certificate.
    ensure!(Https::connect(&world.host, "example.com", &ca).await.is_err());
    world.host.stop().await
}

/// A certificate for `app.localhost`, signed by itself, in two files of `folder`.
fn write(folder: &Path) -> Result<(PathBuf, PathBuf)> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec![HOST.to_owned()])?.self_signed(&key)?;
    let put = |name: &str, text: String| -> Result<PathBuf> {
        let (path, new) = (folder.join(name), folder.join("new"));
        std::fs::write(&new, text)?;
        std::fs::rename(&new, &path)?;
        Ok(path)
    };
    Ok((put("a.pem", certificate.pem())?, put("a-key.pem", key.serialize_pem())?))
}

fn named(certificate: &Path, key: &Path) -> String {
    let (certificate, key) = (certificate.display(), key.display());
    format!(
        "[tls]\nwatch_every = \"50ms\"\n[[tls.certificates]]\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_swapped_under_open_connections() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (certificate, key) = write(folder.path())?;
    let world =
        World::new("process", HostOptions { config: named(&certificate, &key), ..HostOptions::default() })
            .await?;
    let host = &world.host;
    let mut open = Https::connect(host, HOST, &certificate).await?;
    let status = open.get(HOST, "/").await?;
    let first = open.shown();
    for round in 0..3 {
        write(folder.path())?;
        let expected =
            CertificateDer::from_pem_file(&certificate).map_err(|error| anyhow::anyhow!("{error}"))?.to_vec();
        if round == 2 {
            // Not waiting for the look-out; more than one reading does no harm.
            test_kit::process::signal(host.pid()?, Signal::HUP)?;
        }
        eventually("the new certificate", async || {
            let fresh = Https::connect(host, HOST, &certificate).await?;
            Ok((fresh.shown() == expected).then_some(()))
        })
        .await?;
        ensure!(open.get(HOST, "/").await? == status, "the open connection goes on");
    }
    ensure!(open.shown() == first);

    // It vanishes: the last one is served on, and the log says so.
    let served =
        CertificateDer::from_pem_file(&certificate).map_err(|error| anyhow::anyhow!("{error}"))?.to_vec();
    let kept = folder.path().join("kept.pem");
    std::fs::rename(&certificate, &kept)?;
    let log = host.config_file().with_file_name("host.log");
    eventually("word of the lost file", async || {
        let text = std::fs::read_to_string(&log)?;
        Ok((text.contains("the old certificate stays in use") && text.contains("can't read")).then_some(()))
    })
    .await?;
    ensure!(Https::connect(host, HOST, &kept).await?.shown() == served);
    ensure!(open.get(HOST, "/").await? == status, "the open connection goes on");
    drop(open);
    world.host.stop().await
}
