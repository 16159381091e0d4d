//! What is known of a connection before its first request.

use std::net::SocketAddr;
use std::sync::Arc;

use serve::tls::Certificate;

/// A client connection.
pub(crate) struct Accepted {
    /// The client; behind a proxy that speaks the PROXY protocol, whom that names.
    pub(crate) peer: SocketAddr,
    pub(crate) tls: Option<TlsFacts>,
    /// Cleartext is not served here: clients are sent to this port, over TLS.
    pub(crate) redirect_to: Option<u16>,
}

/// Of a connection under TLS.
pub(crate) struct TlsFacts {
    /// What the client was shown.
    pub(crate) certificate: Arc<Certificate>,
    /// The host that the client asked for when it connected; lower case.
    pub(crate) server_name: Option<String>,
}

impl TlsFacts {
    /// Whether requests for the host may come on this connection: it is the one that was asked for, or one
    /// that the certificate is for (RFC 9110, section 7.4).
    pub(crate) fn covers(&self, host: &str) -> bool {
        match &self.server_name {
            None => true,
            Some(name) => name == host || self.certificate.covers(host),
        }
    }
}
