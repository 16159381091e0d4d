//! One connection: TLS with the pinned host, then HTTP/1.1, of which nothing but `/health` is answered
//! before the proof.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use agent_api::header;
use agent_client::handshake::{Proofs, tune};
use http::{HeaderMap, HeaderValue, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::Server;
use super::routes::{self, Answer};
use crate::problem::Refusal;

/// The whole TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// From then until the proof.
const PROOF: Duration = Duration::from_secs(10);
/// A request's head, and the pause before it. The host itself closes after half of that.
const HEADER: Duration = Duration::from_secs(60);
/// A refused peer is let read why.
const FAREWELL: Duration = Duration::from_secs(1);

/// Whether this connection's peer has shown that it has the shared key.
pub struct Peer {
    proofs: Proofs,
    proven: AtomicBool,
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Peer {
    /// Lets a request pass that bears the proof, or comes after one that did. The header to answer with
    /// is the daemon's own proof.
    pub fn admit(&self, headers: &HeaderMap) -> Result<Option<HeaderValue>, Refusal> {
        match headers.get(header::AUTHORIZATION) {
            Some(given) if self.proofs.proves_host(given.as_bytes()) => {
                self.proven.store(true, Ordering::Release);
                self.permit.lock().take();
                let proof = HeaderValue::try_from(self.proofs.daemon_proof());
                proof.map(Some).map_err(|_| Refusal::unauthenticated("the daemon has no proof"))
            }
            Some(_) => Err(Refusal::unauthenticated(
                "the proof is wrong: host and machine have different shared keys, or it is another connection's; let the machine join again",
            )),
            None if self.is_proven() => Ok(None),
            None => Err(Refusal::unauthenticated(
                "this connection has shown no proof of the machine's shared key",
            )),
        }
    }

    fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Acquire)
    }
}

pub async fn serve(server: Arc<Server>, stream: TcpStream, permit: OwnedSemaphorePermit) {
    if tune(&stream).is_err() {
        return;
    }
    let stream = match timeout(HANDSHAKE, server.acceptor.accept(stream).into_fallible()).await {
        Ok(Ok(stream)) => stream,
        Ok(Err((error, stream))) => {
            tracing::debug!(error = %error, "a TLS handshake failed");
            return say_farewell(stream).await;
        }
        Err(_) => return,
    };
    let session = stream.get_ref().1;
    if session.alpn_protocol() != Some(agent_api::ALPN) {
        tracing::debug!("a peer asked for no protocol of this daemon");
        return;
    }
    let Ok(proofs) = Proofs::new(session, &server.machine_id, server.shared_key()) else { return };
    let peer = Arc::new(Peer { proofs, proven: AtomicBool::new(false), permit: Mutex::new(Some(permit)) });

    let (for_requests, own) = (peer.clone(), peer);
    let answer = service_fn(move |request: Request<Incoming>| {
        let (server, peer) = (server.clone(), for_requests.clone());
        async move { Ok::<Answer, std::convert::Infallible>(routes::answer(&server, &peer, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .serve_connection(TokioIo::new(stream), answer)
        .with_upgrades();
    tokio::pin!(connection);
    tokio::select! {
        ended = &mut connection => return log_end(ended),
        () = tokio::time::sleep(PROOF) => {}
    }
    if own.is_proven() {
        log_end(connection.await);
    }
}

fn log_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(error = %error, "a connection ended");
    }
}

/// A client learns from an alert why it was refused. Closing with its bytes unread would reset the
/// connection and take the alert away.
async fn say_farewell(mut stream: TcpStream) {
    let _ = timeout(FAREWELL, async {
        let _ = stream.shutdown().await;
        let mut rest = [0; 4096];
        while matches!(stream.read(&mut rest).await, Ok(1..)) {}
    })
    .await;
}
