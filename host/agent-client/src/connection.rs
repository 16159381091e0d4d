//! One TLS connection to a daemon: dialled, checked, and its errors told apart.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig};
use secrecy::ExposeSecret;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::AgentEndpoint;
use crate::error::AgentError;
use crate::handshake::{PinMismatch, Proofs, rustls_error, tune};

/// TCP and TLS together. A machine that answers does so in well under a second from anywhere.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Whom to dial and what to check.
pub(crate) struct Target {
    pub endpoint: AgentEndpoint,
    tls: Result<TlsConnector, String>,
}

impl Target {
    pub fn new(endpoint: AgentEndpoint, tls: Result<ClientConfig, rustls::Error>) -> Self {
        let tls = tls.map(|config| TlsConnector::from(std::sync::Arc::new(config)));
        Self { endpoint, tls: tls.map_err(|error| error.to_string()) }
    }

    fn machine(&self) -> String {
        self.endpoint.machine_id.clone()
    }

    pub fn address(&self) -> String {
        match self.endpoint.address.contains(':') {
            true => format!("[{}]:{}", self.endpoint.address, self.endpoint.port),
            false => format!("{}:{}", self.endpoint.address, self.endpoint.port),
        }
    }

    /// A new connection on which nothing was sent yet, and its proofs.
    pub async fn dial(&self) -> Result<(TlsStream<TcpStream>, Proofs), AgentError> {
        let connect =
            |source| AgentError::Connect { machine: self.machine(), address: self.address(), source };
        let dialled = tokio::time::timeout(CONNECT_TIMEOUT, self.dial_now()).await;
        dialled.unwrap_or_else(|_| {
            let text = format!("no connection within {} s", CONNECT_TIMEOUT.as_secs());
            Err(connect(io::Error::new(io::ErrorKind::TimedOut, text)))
        })
    }

    async fn dial_now(&self) -> Result<(TlsStream<TcpStream>, Proofs), AgentError> {
        let connect =
            |source| AgentError::Connect { machine: self.machine(), address: self.address(), source };
        let tls = match &self.tls {
            Ok(tls) => tls,
            Err(reason) => {
                return Err(self.unauthenticated(format!("the host's certificate can't be used: {reason}")));
            }
        };
        let addresses: Vec<SocketAddr> =
            tokio::net::lookup_host((self.endpoint.address.as_str(), self.endpoint.port))
                .await
                .map_err(connect)?
                .collect();
        let stream = TcpStream::connect(addresses.as_slice()).await.map_err(connect)?;
        tune(&stream).map_err(connect)?;
        // Never sent and never checked (the pin is): it only names the cache of sessions.
        let name = ServerName::try_from("hythe-agent").map_err(|e| self.protocol(e.to_string()))?;
        let stream = tls.connect(name, stream).await.map_err(|error| self.handshake_error(error))?;
        let (_, session) = stream.get_ref();
        if session.alpn_protocol() != Some(agent_api::ALPN) {
            return Err(self.protocol("it speaks another version than hythe-agent/1: update it".to_owned()));
        }
        let key = self.endpoint.shared_key.expose_secret();
        let proofs = Proofs::new(session, &self.endpoint.machine_id, key)
            .map_err(|error| self.protocol(error.to_string()))?;
        Ok((stream, proofs))
    }

    fn handshake_error(&self, error: io::Error) -> AgentError {
        if let Some(mismatch) = PinMismatch::find(&error) {
            return AgentError::PinMismatch {
                machine: self.machine(),
                address: self.address(),
                expected: mismatch.expected.clone(),
                found: mismatch.found.clone(),
            };
        }
        match rustls_error(&error) {
            Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => self.protocol(
                "it doesn't speak hythe-agent/1: bring host and daemon to the same version".to_owned(),
            ),
            Some(_) if self.refused_certificate(&error).is_none() => {
                self.protocol(format!("the TLS handshake failed: {error}"))
            }
            Some(_) => self.unauthenticated(CERTIFICATE_REFUSED.to_owned()),
            None => AgentError::Connect { machine: self.machine(), address: self.address(), source: error },
        }
    }

    /// In TLS 1.3 a client learns only after its handshake that its certificate was refused.
    fn refused_certificate(&self, error: &(dyn std::error::Error + 'static)) -> Option<AgentError> {
        match rustls_error(error)? {
            rustls::Error::AlertReceived(
                AlertDescription::AccessDenied
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateRequired
                | AlertDescription::UnknownCA,
            ) => Some(self.unauthenticated(CERTIFICATE_REFUSED.to_owned())),
            _ => None,
        }
    }

    /// What a failed exchange means.
    pub fn exchange_error(&self, error: hyper::Error) -> AgentError {
        if let Some(refused) = self.refused_certificate(&error) {
            return refused;
        }
        if error.is_user() {
            return AgentError::Body(Box::new(error));
        }
        if error.is_parse() {
            return self.protocol(error.to_string());
        }
        self.interrupted(error)
    }

    pub fn interrupted(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> AgentError {
        AgentError::Interrupted { machine: self.machine(), address: self.address(), source: source.into() }
    }

    pub fn protocol(&self, reason: String) -> AgentError {
        AgentError::Protocol { machine: self.machine(), address: self.address(), reason }
    }

    pub fn unauthenticated(&self, reason: String) -> AgentError {
        AgentError::Unauthenticated { machine: self.machine(), address: self.address(), reason }
    }

    pub fn timeout(&self, what: &'static str, after: Duration) -> AgentError {
        AgentError::Timeout { machine: self.machine(), address: self.address(), what, after }
    }
}

const CERTIFICATE_REFUSED: &str =
    "the daemon refuses the host's certificate; if the host's was made anew, let the machine join again";
