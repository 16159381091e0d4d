//! New TLS connections: each makes one handshake, asks once and is closed.
//!
//! TLS 1.3 only, nothing is resumed. The client believes every certificate without looking, so that it costs less than
//! the server that it measures.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{ClientConfig, Resumption};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{DigitallySignedStruct, SignatureScheme};

use super::load::Outcome;
use super::poll::connect;

const AT_ONCE: usize = 16;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: bench.localhost\r\nconnection: close\r\n\r\n";

#[derive(Debug)]
struct Believes;

impl ServerCertVerifier for Believes {
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
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// Opens connections for `warm` and then for `length`; `meter` is read at the window's ends.
///
/// # Errors
/// Where a handshake fails, or an answer is no 200.
pub fn run<R>(
    address: SocketAddr,
    warm: Duration,
    length: Duration,
    mut meter: impl FnMut() -> anyhow::Result<R>,
) -> anyhow::Result<Outcome<R>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Believes))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    runtime.block_on(local.run_until(async move {
        let completed = Rc::new(Cell::new(0_u64));
        let end = Instant::now() + warm + length + Duration::from_secs(1);
        let clients: Vec<_> = (0..AT_ONCE)
            .map(|number| {
                let (connector, completed) = (connector.clone(), Rc::clone(&completed));
                tokio::task::spawn_local(async move {
                    let mut opened = number * 50_000;
                    while Instant::now() < end {
                        tokio::time::timeout(Duration::from_secs(10), once(address, opened, &connector))
                            .await
                            .context("a handshake took more than 10 s")??;
                        completed.set(completed.get() + 1);
                        opened += 1;
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        tokio::time::sleep(warm).await;
        let (before, at_start, start) = (meter()?, completed.get(), Instant::now());
        tokio::time::sleep(length).await;
        let (after, completed, took) = (meter()?, completed.get() - at_start, start.elapsed());
        for client in clients {
            if client.is_finished() {
                client.await??;
            } else {
                client.abort();
            }
        }
        ensure!(completed > 0, "no handshake was completed within {:.1} s", took.as_secs_f64());
        Ok(Outcome { completed, bytes: 0, latencies_us: Vec::new(), took, before, after })
    }))
}

async fn once(address: SocketAddr, number: usize, connector: &TlsConnector) -> anyhow::Result<()> {
    let stream = connect(address, number)?;
    stream.set_nonblocking(true)?;
    let stream = tokio::net::TcpStream::from_std(stream)?;
    let mut stream = connector.connect(ServerName::try_from("bench.localhost")?, stream).await?;
    stream.write_all(REQUEST).await?;
    let mut answer = Vec::with_capacity(2048);
    loop {
        match stream.read_buf(&mut answer).await {
            Ok(0) => break,
            Ok(_) => {}
            // Some close without saying so in TLS.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error.into()),
        }
    }
    ensure!(
        answer.starts_with(b"HTTP/1.1 200 ") && answer.len() > super::upstream::SMALL,
        "answered {:?}",
        String::from_utf8_lossy(&answer[..answer.len().min(60)])
    );
    Ok(())
}
