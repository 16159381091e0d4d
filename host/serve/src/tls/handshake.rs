//! The handshake of one connection.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{Acceptor, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::Tls;
use super::certificate::Certificate;

/// A fatal alert `unrecognized_name` (112), as a record that needs no keys: RFC 8446 §6, RFC 6066 §3.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct Accepted<S> {
    pub stream: TlsStream<S>,
    /// What the client called this server, in lower case.
    pub server_name: Option<String>,
    /// What it was shown (or was shown when the session began that it resumed).
    pub certificate: Arc<Certificate>,
}

impl<S> Accepted<S> {
    /// Whether the client may ask for `host` here; see [`Certificate::covers`].
    #[must_use]
    pub fn covers(&self, host: &str) -> bool {
        self.certificate.covers(host)
    }

    /// What ALPN chose.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.stream.get_ref().1.alpn_protocol()
    }
}

impl Tls {
    /// The server's side of a handshake. No limit of time: the caller sets it.
    ///
    /// Not cancel safe: a dropped handshake ends its connection.
    ///
    /// # Errors
    /// What the client did wrong or could not agree to (`InvalidData`, with the library's error inside), a name that
    /// no certificate has (`NotFound`), an end in the middle (`UnexpectedEof`), or what the socket says.
    pub async fn accept<S>(&self, stream: S) -> io::Result<Accepted<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let server_name = hello.client_hello().server_name().map(str::to_ascii_lowercase);
        let Some(certificate) = self.choice.certificate(server_name.as_deref()) else {
            hello.io.write_all(&UNRECOGNIZED_NAME).await?;
            hello.io.shutdown().await?;
            return Err(io::Error::new(io::ErrorKind::NotFound, NoSuchName(server_name)));
        };
        // The certificate was chosen: whatever is loaded meanwhile, this is what the client sees.
        let mut config = ServerConfig::clone(&self.config);
        config.cert_resolver = Arc::new(Chosen(certificate.key().clone()));
        let stream = hello.into_stream(Arc::new(config)).await?;
        Ok(Accepted { stream, server_name, certificate })
    }
}

/// The client asked for a name that nothing here has.
#[derive(Debug, thiserror::Error)]
#[error("no certificate has the name {}", .0.as_deref().unwrap_or("(none: the client named none, and there is no default)"))]
struct NoSuchName(Option<String>);

#[derive(Debug)]
struct Chosen(Arc<CertifiedKey>);

impl ResolvesServerCert for Chosen {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}
