//! Connections that the daemon carries to a local port of a workload.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use agent_api::header;
use bytes::{Buf, Bytes};
use http::{HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::client::AgentClient;
use crate::error::AgentError;

/// From dialling to the daemon's 200, its own dialling of the local port included.
const TUNNEL_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_PROBLEM: usize = 64 * 1024;

/// Bytes to and from a local port of a workload, as they are. Shutting down the writing side is passed
/// on as the end of input there, while the other direction goes on.
#[derive(Debug)]
pub struct Tunnel {
    stream: TlsStream<TcpStream>,
    /// What came in one piece with the daemon's 200.
    early: Bytes,
}

impl AgentClient {
    /// A connection to `port` on the machine's loopback, which must belong to this incarnation of the
    /// deployment (`dep_…`).
    ///
    /// # Errors
    /// [`AgentError::Refused`] with 404 where the port is none of the workload's, 409 where another
    /// incarnation runs, 503 where nothing accepts there; else as [`AgentClient::send`].
    pub async fn tunnel(&self, deployment: &str, incarnation: u64, port: u16) -> Result<Tunnel, AgentError> {
        match tokio::time::timeout(TUNNEL_TIMEOUT, self.open_tunnel(deployment, incarnation, port)).await {
            Ok(opened) => opened,
            Err(_) => Err(self.inner.target.timeout("opening a tunnel", TUNNEL_TIMEOUT)),
        }
    }

    async fn open_tunnel(&self, deployment: &str, incarnation: u64, port: u16) -> Result<Tunnel, AgentError> {
        let target = &self.inner.target;
        let authority = format!("127.0.0.1:{port}");
        let (stream, proofs) = target.dial().await?;
        let invalid = |error: http::Error| AgentError::InvalidRequest { reason: error.to_string() };
        let mut authorization =
            HeaderValue::try_from(proofs.authorization()).map_err(|e| invalid(e.into()))?;
        authorization.set_sensitive(true);
        let request = http::Request::builder()
            .method(Method::CONNECT)
            .uri(&authority)
            .header(http::header::HOST, &authority)
            .header(header::AUTHORIZATION, authorization)
            .header(header::DEPLOYMENT, deployment)
            .header(header::INCARNATION, incarnation)
            .body(Empty::<Bytes>::new())
            .map_err(invalid)?;

        let (mut sender, driver) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| target.exchange_error(e))?;
        // Ends when the answer is a refusal, or when the tunnel takes the connection over.
        tokio::spawn(driver.with_upgrades());
        let mut response = sender.send_request(request).await.map_err(|e| target.exchange_error(e))?;

        let status = response.status();
        let proven =
            response.headers().get(header::PROOF).is_some_and(|given| proofs.proves_daemon(given.as_bytes()));
        if status != StatusCode::OK {
            let body = Limited::new(response.into_body(), MAX_PROBLEM).collect().await;
            let body = body.map_err(|error| target.interrupted(error))?.to_bytes();
            let problem = serde_json::from_slice(&body).unwrap_or_else(|_| agent_api::Problem {
                code: agent_api::error_code::INTERNAL.to_owned(),
                message: String::from_utf8_lossy(&body).into_owned(),
            });
            return Err(match status {
                StatusCode::UNAUTHORIZED => target.unauthenticated(problem.message),
                _ => AgentError::Refused { status, problem },
            });
        }
        if !proven {
            return Err(target.unauthenticated("the daemon's proof is wrong or missing".to_owned()));
        }
        let upgraded = hyper::upgrade::on(&mut response).await.map_err(|e| target.exchange_error(e))?;
        let parts = upgraded
            .downcast::<TokioIo<TlsStream<TcpStream>>>()
            .map_err(|_| target.protocol("the tunnel is not the connection that was opened".to_owned()))?;
        Ok(Tunnel { stream: parts.io.into_inner(), early: parts.read_buf })
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.has_remaining() {
            let count = self.early.len().min(buf.remaining());
            buf.put_slice(&self.early.split_to(count));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
