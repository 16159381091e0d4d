//! What has begun lives on: 500 WebSockets (100 of them over TLS), 100 event streams and a download of 1 GiB,
//! through a change of routes, of a certificate, another project's deployment, a database that is frozen for
//! a minute and one that restarts, and a swap of binaries.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use rcgen::{CertificateParams, KeyPair};
use reqwest::Method;
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use test_kit::host::{HostOptions, TestHost, glob_postmaster};
use test_kit::process::{eventually, program, signal};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::worlds::World;

const HOST: &str = "app.localhost";
const SOCKETS: usize = 500;
const SECURED: usize = 100;
const STREAMS: usize = 100;
const DOWNLOAD: u64 = 1 << 30;
/// How long the database stands still.
const AWAY: Duration = Duration::from_secs(60);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

type Socket = WebSocketStream<Box<dyn Stream>>;

/// All that is open.
struct Open {
    sockets: Vec<Socket>,
    streams: Vec<BoxStream<'static, reqwest::Result<Bytes>>>,
    download: BoxStream<'static, reqwest::Result<Bytes>>,
    downloaded: u64,
    said: u32,
}

impl Open {
    async fn new(host: &TestHost, trusted: &Path) -> Result<Self> {
        let mut sockets = Vec::with_capacity(SOCKETS);
        for number in 0..SOCKETS {
            let stream: Box<dyn Stream> = if number < SECURED {
                Box::new(secured(host, trusted).await?)
            } else {
                Box::new(TcpStream::connect(host.ingress).await?)
            };
            let request = format!("ws://{HOST}/ws?name=socket-{number}").into_client_request()?;
            sockets.push(tokio_tungstenite::client_async(request, stream).await?.0);
        }
        let mut streams = Vec::with_capacity(STREAMS);
        for _ in 0..STREAMS {
            let answer = host.browse(Method::GET, HOST, "/api/events")?.send().await?;
            ensure!(answer.status().is_success(), "{}", answer.status());
            streams.push(answer.bytes_stream().boxed());
        }
        let answer = host.browse(Method::GET, HOST, &format!("/api/blob?bytes={DOWNLOAD}"))?.send().await?;
        let download = answer.bytes_stream().boxed();
        Ok(Self { sockets, streams, download, downloaded: 0, said: 0 })
    }

    /// Uses each of them once: every socket echoes, every stream tells of something new, the download goes
    /// on by a sixth.
    async fn lives(&mut self, host: &TestHost, after: &str) -> Result<()> {
        self.said += 1;
        let text = self.said.to_be_bytes();
        for (number, socket) in self.sockets.iter_mut().enumerate() {
            echoes(socket, &text).await.with_context(|| format!("socket {number}, after {after}"))?;
        }
        let said = format!("said after {after}");
        let saying = json!({ "author": "test", "text": said });
        let answer = host.browse(Method::POST, HOST, "/api/messages")?.json(&saying).send().await?;
        ensure!(answer.status().is_success(), "{} after {after}", answer.status());
        for (number, stream) in self.streams.iter_mut().enumerate() {
            let mut seen = String::new();
            while !seen.contains(&said) {
                let piece =
                    stream.try_next().await.with_context(|| format!("stream {number}, after {after}"))?;
                let piece = piece.with_context(|| format!("stream {number} ended after {after}"))?;
                seen.push_str(&String::from_utf8_lossy(&piece));
            }
        }
        self.download(DOWNLOAD / 6 * u64::from(self.said)).await.with_context(|| format!("after {after}"))
    }

    async fn download(&mut self, until: u64) -> Result<()> {
        while self.downloaded < until {
            let piece = self.download.try_next().await?.context("the download ended too soon")?;
            for byte in [0, piece.len() - 1] {
                let expected = (self.downloaded + byte as u64) % 251;
                ensure!(u64::from(piece[byte]) == expected, "byte {} is wrong", self.downloaded);
            }
            self.downloaded += piece.len() as u64;
        }
        Ok(())
    }
}

async fn secured(host: &TestHost, trusted: &Path) -> Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(trusted).map_err(|error| anyhow::anyhow!("{error}"))?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(host.https).await?;
    Ok(TlsConnector::from(Arc::new(client)).connect(ServerName::try_from(HOST)?, stream).await?)
}

async fn echoes(socket: &mut Socket, text: &[u8]) -> Result<()> {
    socket.send(Message::Binary(text.to_vec().into())).await?;
    loop {
        match socket.next().await.context("it was closed")?? {
            Message::Binary(bytes) if bytes == text => return Ok(()),
            Message::Close(_) => bail!("it was closed"),
            _ => {}
        }
    }
}

/// Requests to a known route, one after another; those that did not get a 200.
async fn load(host: Arc<Known>, stop: Arc<AtomicBool>) -> Result<(u64, Vec<String>)> {
    let client = reqwest::Client::builder().no_proxy().resolve(HOST, host.address).build()?;
    let asked = AtomicU64::new(0);
    let mut failed = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let answer = client.get(format!("http://{HOST}:{}/api/info", host.address.port())).send().await;
        asked.fetch_add(1, Ordering::SeqCst);
        match answer {
            Ok(answer) if answer.status().is_success() => {}
            Ok(answer) => failed.push(answer.status().to_string()),
            Err(error) => failed.push(format!("{error:?}")),
        }
        // Enough to notice: this is no benchmark.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok((asked.into_inner(), failed))
}

struct Known {
    address: std::net::SocketAddr,
}

fn write_certificate(folder: &Path) -> Result<()> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec![HOST.to_owned()])?.self_signed(&key)?;
    for (name, text) in [("a.pem", certificate.pem()), ("a-key.pem", key.serialize_pem())] {
        let new = folder.join("new");
        std::fs::write(&new, text)?;
        std::fs::rename(&new, folder.join(name))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_begun_lives_on_through_everything() -> Result<()> {
    let folder = tempfile::tempdir()?;
    write_certificate(folder.path())?;
    let (certificate, key) = (folder.path().join("a.pem"), folder.path().join("a-key.pem"));
    let config = format!(
        "[tls]\nwatch_every = \"50ms\"\n[[tls.certificates]]\ncertificate = \"{}\"\nkey = \"{}\"\n",
        certificate.display(),
        key.display()
    );
    let world = World::new("process", HostOptions { config, ..HostOptions::default() }).await?;
    let host = &world.host;
    let deployment = world.deploy().await?;
    host.wait(deployment.id, "primary", |deployment| deployment.is_primary).await?;
    eventually("the project's host to answer", async || {
        Ok(host.browse(Method::GET, HOST, "/healthz")?.send().await?.status().is_success().then_some(()))
    })
    .await?;
    let mut open = Open::new(host, &certificate).await?;
    open.lives(host, "the start").await?;

    // Another project comes, and one of its deployments goes: routes change.
    let other = host.deploy("other", world.deployment()).await?;
    host.wait(other.id, "primary", |deployment| deployment.is_primary).await?;
    host.send(Method::DELETE, &format!("/v1/deployments/{}?force=true", other.id), None).await?;
    open.lives(host, "another project's deployment").await?;

    write_certificate(folder.path())?;
    eventually("the new certificate", async || Ok(secured(host, &certificate).await.is_ok().then_some(())))
        .await?;
    open.lives(host, "another certificate").await?;

    let stop = Arc::new(AtomicBool::new(false));
    let asked = tokio::spawn(load(Arc::new(Known { address: host.ingress }), Arc::clone(&stop)));
    let postgres = glob_postmaster(&host.data_dir().join("postgres")).context("no Postgres")?;
    signal(postgres, Signal::STOP)?;
    let frozen = Instant::now();
    open.lives(host, "the database froze").await?;
    while frozen.elapsed() < AWAY {
        // A client that takes nothing for a minute would be let go.
        open.download(open.downloaded + (2 << 20)).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    signal(postgres, Signal::CONT)?;
    // And one that falls over: the host brings it back.
    signal(postgres, Signal::KILL)?;
    eventually("the database", async || {
        let listed = host.send(Method::GET, "/v1/projects", None).await;
        Ok(listed.is_ok_and(|(status, _)| status.is_success()).then_some(()))
    })
    .await?;
    open.lives(host, "the database came back").await?;
    stop.store(true, Ordering::SeqCst);
    let (asked, failed) = asked.await??;
    ensure!(failed.is_empty(), "{} of {asked} requests failed: {:?}", failed.len(), failed.first());
    ensure!(asked > 1000, "only {asked} requests");

    let before = host.pid()?;
    let mut command = std::process::Command::new(program("hythe")?);
    command.args(["upgrade", "--data-dir"]).arg(host.data_dir());
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ensure!(host.pid()? != before, "another process has the host");
    open.lives(host, "a swap of binaries").await?;
    open.download(DOWNLOAD).await?;
    ensure!(open.download.next().await.is_none() && open.downloaded == DOWNLOAD, "it is whole");
    drop(open);
    world.host.stop_successor().await
}
