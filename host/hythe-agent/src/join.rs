//! Joining a host: a one-time token for this machine's identity.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent_api::{DEFAULT_PORT, RegistrationRequest, RegistrationResponse};
use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::data::DataFolder;
use crate::facts;

const PATIENCE: Duration = Duration::from_secs(30);
const MAX_ANSWER: usize = 64 * 1024;

/// Options of `hythe-agent join`.
#[derive(Debug, clap::Args)]
pub struct Join {
    /// Folder of all that the daemon keeps.
    #[arg(long, value_name = "DIR", env = "HYTHE_AGENT_DATA_DIR")]
    pub data_dir: PathBuf,
    /// The host's API, such as http://127.0.0.1:8090.
    #[arg(long, value_name = "URL")]
    host: Uri,
    /// One-time token, `amt_…`.
    #[arg(long, env = "HYTHE_AGENT_TOKEN", hide_env_values = true)]
    token: String,
    /// What the machine is called; its host name, where this is left out.
    #[arg(long)]
    name: Option<String>,
    /// Address at which the host reaches this machine; the one from which it joins, where this is left out.
    #[arg(long)]
    address: Option<String>,
    /// Port at which the host reaches the daemon.
    #[arg(long, default_value_t = DEFAULT_PORT)]
    port: u16,
    /// Send the token in clear over a network.
    #[arg(long)]
    insecure: bool,
}

/// What the host says where it refuses (RFC 9457).
#[derive(Deserialize)]
struct HostProblem {
    detail: Option<String>,
    title: Option<String>,
}

/// Registers this machine and keeps the identity that it gets. Returns the machine's id.
///
/// # Errors
/// Where it has joined already, the token's form is wrong, the host can't be reached safely or refuses.
pub async fn join(options: &Join) -> anyhow::Result<String> {
    check_token(&options.token)?;
    let endpoint = Endpoint::new(&options.host, options.insecure)?;
    let data = DataFolder::open(&options.data_dir)?;
    if let Some(identity) = data.identity()? {
        bail!(
            "this machine has joined as {} already: to join anew, remove it from its host, then delete {}/identity.json",
            identity.machine_id,
            data.path().display()
        );
    }
    let certificate_sha256 = agent_client::prepare_certificate(data.path())?;
    let identity = timeout(PATIENCE, endpoint.register(options, certificate_sha256)).await;
    let identity = identity
        .with_context(|| format!("{} gave no answer within {} s", options.host, PATIENCE.as_secs()))??;
    data.write_identity(&identity)?;
    Ok(identity.machine_id)
}

fn check_token(token: &str) -> anyhow::Result<()> {
    let digits = token.strip_prefix("amt_").unwrap_or_default();
    if digits.len() == 48 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(());
    }
    bail!(
        "the token is malformed: expected `amt_` and 48 hex digits, got {} characters; copy it whole",
        token.len()
    )
}

struct Endpoint {
    tls: bool,
    host: String,
    port: u16,
    prefix: String,
}

impl Endpoint {
    fn new(uri: &Uri, insecure: bool) -> anyhow::Result<Self> {
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => bail!(
                "--host {uri}: expected a URL such as https://hythe.example.com or http://127.0.0.1:8090"
            ),
        };
        let host = uri.host().with_context(|| format!("--host {uri} names no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if !tls && !insecure && !is_loopback(&host) {
            bail!(
                "--host {uri} would carry the token and the machine's key in clear over a network: use https, or \
                 tunnel it to 127.0.0.1, or say --insecure"
            );
        }
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { tls, host, port, prefix })
    }

    async fn register(
        &self,
        options: &Join,
        certificate_sha256: String,
    ) -> anyhow::Result<RegistrationResponse> {
        let unreachable = || format!("reaching {} at {}:{}", options.host, self.host, self.port);
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.with_context(unreachable)?;
        let address = match &options.address {
            Some(address) => address.clone(),
            None => stream.local_addr()?.ip().to_string(),
        };
        let request = RegistrationRequest {
            token: options.token.clone(),
            facts: facts::machine(options.name.clone()),
            address,
            port: options.port,
            certificate_sha256,
        };
        let body = serde_json::to_vec(&request)?;
        if !self.tls {
            return self.exchange(stream, body).await;
        }
        let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(self.host.clone())?;
        let stream =
            TlsConnector::from(Arc::new(config)).connect(name, stream).await.with_context(unreachable)?;
        self.exchange(stream, body).await
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        body: Vec<u8>,
    ) -> anyhow::Result<RegistrationResponse> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}/v1/machines/register", self.prefix))
            .header(http::header::HOST, format!("{}:{}", self.host, self.port))
            .header(http::header::CONTENT_TYPE, "application/json")
            .header(http::header::ACCEPT, "application/json")
            .body(Full::new(Bytes::from(body)))?;
        let answer = sender.send_request(request).await.context("the host broke the connection off")?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body =
            body.map_err(|error| anyhow::anyhow!("the host's answer can't be read: {error}"))?.to_bytes();
        if !status.is_success() {
            bail!("the host refused to register this machine ({status}): {}", reason(status, &body));
        }
        serde_json::from_slice(&body)
            .context("the host's answer is not an identity: is --host really a Hythe host?")
    }
}

fn reason(status: StatusCode, body: &[u8]) -> String {
    let problem = serde_json::from_slice::<HostProblem>(body).ok();
    match problem.and_then(|problem| problem.detail.or(problem.title)) {
        Some(detail) => detail,
        None if status == StatusCode::NOT_FOUND => {
            "it has no such address: is --host really a Hythe host?".to_owned()
        }
        None => "it says no more".to_owned(),
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_in_clear_over_a_network_is_refused() {
        let endpoint = |uri: &str, insecure| Endpoint::new(&uri.parse().unwrap(), insecure);
        assert!(endpoint("http://127.0.0.1:8090", false).is_ok());
        assert!(endpoint("http://[::1]:8090/", false).is_ok());
        assert!(endpoint("http://localhost:8090", false).is_ok());
        assert!(endpoint("https://hythe.example.com", false).is_ok());
        assert!(endpoint("http://hythe.example.com", true).is_ok());
        let error = endpoint("http://hythe.example.com", false).err().unwrap().to_string();
        assert!(error.contains("--insecure"), "{error}");
        assert!(endpoint("hythe.example.com", false).is_err());
    }

    #[test]
    fn a_malformed_token_is_said_before_it_is_sent() {
        check_token(&format!("amt_{}", "0f".repeat(24))).unwrap();
        for token in ["", "amt_", "amt_00", &format!("xyz_{}", "0f".repeat(24))] {
            assert!(check_token(token).unwrap_err().to_string().contains("malformed"));
        }
    }
}
