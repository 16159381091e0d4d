//! The floor for an HTTP proxy in this language: `bench raw-hyper …` is hyper's server in front of hyper's
//! `client::conn`, with a pool of our own, on one thread.
//!
//! It looks a host up in a map and forwards; it makes no forwarding headers, checks nothing, limits nothing and has no
//! time-outs. What Hythe costs beyond it is what Hythe does.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as Task, Poll};

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self as client, SendRequest};
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::names;
use super::poll::listen;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Where it listens and where it forwards to; all on 127.0.0.1.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[arg(long)]
    port: u16,
    #[arg(long)]
    tls_port: u16,
    #[arg(long)]
    upstream: u16,
    /// Certificate chain, PEM
    #[arg(long)]
    certificate: PathBuf,
    /// Its key, PEM
    #[arg(long)]
    key: PathBuf,
    #[arg(long, default_value_t = 1)]
    routes: usize,
}

type Pool = Arc<Mutex<Vec<SendRequest<Incoming>>>>;

struct Proxy {
    routes: HashMap<String, (SocketAddr, Pool)>,
}

/// Forwards until it is killed.
///
/// # Errors
/// Where a port is taken or the certificate can't be used.
pub async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let upstream = SocketAddr::from(([127, 0, 0, 1], arguments.upstream));
    let pool = Pool::default();
    let routes = names(arguments.routes).map(|name| (name, (upstream, Arc::clone(&pool)))).collect();
    let proxy = Arc::new(Proxy { routes });
    let tls = acceptor(&arguments.certificate, &arguments.key)?;
    let bind = |port| -> anyhow::Result<TcpListener> {
        Ok(TcpListener::from_std(listen(port).with_context(|| format!("can't listen on port {port}"))?)?)
    };
    let (plain, secure) = (bind(arguments.port)?, bind(arguments.tls_port)?);
    let with_tls = Arc::clone(&proxy);
    tokio::spawn(async move {
        while let Ok((stream, _)) = secure.accept().await {
            let (tls, proxy) = (tls.clone(), Arc::clone(&with_tls));
            tokio::spawn(async move {
                if stream.set_nodelay(true).is_ok()
                    && let Ok(stream) = tls.accept(stream).await
                {
                    proxy.serve(stream).await;
                }
            });
        }
    });
    loop {
        let (stream, _) = plain.accept().await?;
        stream.set_nodelay(true)?;
        let proxy = Arc::clone(&proxy);
        tokio::spawn(async move { proxy.serve(stream).await });
    }
}

fn acceptor(certificate: &Path, key: &Path) -> anyhow::Result<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

impl Proxy {
    async fn serve(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let service = service_fn(move |request| {
            let proxy = Arc::clone(&self);
            async move { Ok::<_, Infallible>(proxy.answer(request).await) }
        });
        // A client that goes away ends its connection only.
        let _ = server::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<BoxBody<Bytes, hyper::Error>> {
        let refused = |status| {
            let mut answer = Response::new(Empty::new().map_err(|never: Infallible| match never {}).boxed());
            *answer.status_mut() = status;
            answer
        };
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        let Some((address, pool)) = host.and_then(|host| self.routes.get(host)) else {
            return refused(StatusCode::NOT_FOUND);
        };
        forward(request, *address, pool).await.unwrap_or_else(|_| refused(StatusCode::BAD_GATEWAY))
    }
}

async fn forward(
    mut request: Request<Incoming>,
    address: SocketAddr,
    pool: &Pool,
) -> Result<Response<BoxBody<Bytes, hyper::Error>>, Error> {
    let upgrade = request.headers().get(header::UPGRADE).cloned();
    let headers = request.headers_mut();
    headers.remove(header::CONNECTION);
    if upgrade.is_some() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    let of_client = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
    let mut sender = take(address, pool).await?;
    let mut answer = sender.send_request(request).await?;
    if let (StatusCode::SWITCHING_PROTOCOLS, Some(of_client)) = (answer.status(), of_client) {
        let of_upstream = hyper::upgrade::on(&mut answer);
        tokio::spawn(async move {
            if let (Ok(client), Ok(upstream)) = (of_client.await, of_upstream.await) {
                let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
                // Either end may go away at any time.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
            }
        });
        return Ok(answer.map(|_| Empty::new().map_err(|never: Infallible| match never {}).boxed()));
    }
    Ok(answer.map(|body| Pooled { body, back: Some((sender, Arc::clone(pool))) }.boxed()))
}

async fn take(address: SocketAddr, pool: &Pool) -> Result<SendRequest<Incoming>, Error> {
    loop {
        let idle = pool.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some(mut sender) = idle else { break };
        if sender.ready().await.is_ok() {
            return Ok(sender);
        }
    }
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = client::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection.with_upgrades());
    Ok(sender)
}

/// An answer's body that gives the connection back when it was read to its end.
struct Pooled {
    body: Incoming,
    back: Option<(SendRequest<Incoming>, Pool)>,
}

impl Pooled {
    fn give_back(&mut self) {
        if let Some((sender, pool)) = self.back.take() {
            pool.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        }
    }
}

impl Body for Pooled {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(task));
        if self.body.is_end_stream() || frame.is_none() {
            self.give_back();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
