//! What an operator may set, and why ingress would not start.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serve::inherit::Inherited;
use serve::tls::Tls;

use crate::real::QUIET_AGENTS;

/// Settings of one ingress. All time-outs are enforced by a clock that ticks a few times a second, so
/// they are as precise as that.
#[derive(Debug, Clone)]
pub struct IngressConfig {
    /// Where to listen, and for what.
    pub listen: Vec<Listen>,
    /// Sockets that came from the process before this one: they are listened on instead of new ones.
    pub inherited: Arc<Inherited>,
    /// `<slug>.<base>` and so on. Lower case, without a dot at either end. `localhost` needs no DNS.
    pub base_domain: String,
    /// Worker threads, each with its own sockets and upstream pools. At least 1.
    pub workers: usize,
    /// How long a request waits for a deployment that starts.
    pub wake_timeout: Duration,
    /// How many requests may wait for one deployment; more get 503 `overloaded`.
    pub wake_queue: usize,
    /// After this long a browser that waits for a deployment (whose wake policy is not `blocking`) gets a page
    /// that becomes the app by itself. Short: what starts within it is shown at once.
    pub wake_page_after: Duration,
    /// What stands, in any case, in the `User-Agent` of health checkers and monitors: their requests are no
    /// activity and wake nothing.
    pub quiet_agents: Vec<String>,
    /// For opening one connection to an upstream.
    pub connect_timeout: Duration,
    /// How often connecting is tried again, 100 ms × 2ⁿ apart, while the deployment should run.
    pub connect_retries: u32,
    /// From the first byte of a request's head (or from accepting the connection) to its end.
    pub header_timeout: Duration,
    /// Between two pieces of a request's body, while the upstream wants them.
    pub body_timeout: Duration,
    /// Without progress while an answer is written to the client.
    pub write_timeout: Duration,
    /// Bytes a second that a client that is waited for has to send or take, over the whole of
    /// `body_timeout` or `write_timeout`: less is as slow as nothing. Not of conversations (gRPC, tunnels).
    pub least_rate: u32,
    /// From the end of the request to the head of the answer. Long on purpose: apps have their own.
    pub response_timeout: Duration,
    /// Between requests of one client connection.
    pub keep_alive_timeout: Duration,
    /// A tunnel (WebSocket or another upgrade) without a byte in either direction.
    pub upgrade_timeout: Duration,
    /// Idle upstream connections are closed after this long: less than common servers' own 5 s, so
    /// that they are seldom reused while the upstream closes them.
    pub pool_idle_timeout: Duration,
    /// Idle upstream connections kept for one service, by each worker.
    pub pool_idle_max: usize,
    /// A request's head, in bytes; more gets 431, as do more than 100 fields. At least 8192.
    pub max_header_bytes: usize,
    /// Client connections of one worker; more wait in the kernel's queue.
    pub max_connections: usize,
    /// Requests and tunnels open at one worker; more get 503 `overloaded`.
    pub max_requests: usize,
    /// Requests and tunnels open at one deployment, in all workers; more get 503 `overloaded`.
    pub max_deployment_requests: usize,
    /// A busy worker whose clock runs later than this has more to do than it can: new requests get 503
    /// `overloaded` until it has caught up.
    pub overload_delay: Duration,
    /// Streams that a client of HTTP/2 may have open on one connection.
    pub max_streams: u32,
    /// Peers whose forwarding headers are believed.
    pub trusted_proxies: TrustedProxies,
    /// `https` where something in front of ingress ends TLS; becomes `X-Forwarded-Proto`.
    pub public_scheme: model::Scheme,
    /// The share of requests that the access log has, from 0 (none) to 1 (all).
    pub access_log: f64,
    /// Deployments with metrics of their own; the rest are summed as `other`.
    pub metrics_deployments: usize,
}

impl Default for IngressConfig {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 8080)).into()],
            inherited: Arc::default(),
            base_domain: "localhost".to_owned(),
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            wake_timeout: Duration::from_secs(60),
            wake_queue: 256,
            wake_page_after: Duration::from_millis(300),
            quiet_agents: QUIET_AGENTS.map(str::to_owned).to_vec(),
            connect_timeout: Duration::from_secs(5),
            connect_retries: 3,
            header_timeout: Duration::from_secs(15),
            body_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            least_rate: 500,
            response_timeout: Duration::from_secs(600),
            keep_alive_timeout: Duration::from_secs(75),
            upgrade_timeout: Duration::from_secs(3600),
            pool_idle_timeout: Duration::from_secs(4),
            pool_idle_max: 1024,
            max_header_bytes: 64 * 1024,
            max_connections: 65_536,
            max_requests: 65_536,
            max_deployment_requests: 16_384,
            overload_delay: Duration::from_millis(500),
            max_streams: 100,
            trusted_proxies: TrustedProxies::default(),
            public_scheme: model::Scheme::Http,
            access_log: 0.0,
            metrics_deployments: 200,
        }
    }
}

/// One place to listen at.
#[derive(Debug, Clone)]
pub struct Listen {
    /// Port 0 takes a free one, see [`Ingress::local_addrs`](crate::Ingress::local_addrs).
    pub address: SocketAddr,
    /// None: cleartext.
    pub tls: Option<Arc<Tls>>,
    /// Whether every connection begins with a header of the PROXY protocol, version 2; without one it is
    /// closed. For listeners that only a proxy reaches: whoever connects is believed.
    pub proxy_protocol: bool,
    /// Cleartext requests are sent to this port over TLS (308), and not served.
    pub redirect_to_https: Option<u16>,
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self { address, tls: None, proxy_protocol: false, redirect_to_https: None }
    }
}

/// Address blocks (CIDR) whose peers are believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<(IpAddr, u8)>);

impl TrustedProxies {
    /// Whether the peer lies in one of the blocks. An IPv4 address mapped into IPv6 is the IPv4 one.
    #[must_use]
    pub fn contains(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.0.iter().any(|(network, prefix)| match (network, peer) {
            (IpAddr::V4(network), IpAddr::V4(peer)) => {
                let shift = 32 - u32::from(*prefix);
                u64::from(network.to_bits()) >> shift == u64::from(peer.to_bits()) >> shift
            }
            (IpAddr::V6(network), IpAddr::V6(peer)) => {
                let shift = 128 - u32::from(*prefix);
                network.to_bits().checked_shr(shift).unwrap_or(0)
                    == peer.to_bits().checked_shr(shift).unwrap_or(0)
            }
            _ => false,
        })
    }

    /// Whether nobody is believed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TrustedProxies {
    /// Reads blocks such as `10.0.0.0/8`, `::1` or `192.0.2.7`.
    ///
    /// # Errors
    /// The first text that is not one.
    pub fn parse<S: AsRef<str>>(blocks: impl IntoIterator<Item = S>) -> Result<Self, IngressError> {
        blocks.into_iter().map(|block| parse_block(block.as_ref())).collect::<Result<_, _>>().map(Self)
    }
}

fn parse_block(text: &str) -> Result<(IpAddr, u8), IngressError> {
    let invalid = || IngressError::TrustedProxy { text: text.to_owned() };
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix.parse::<u8>().map_err(|_| invalid())?)),
        None => (text, None),
    };
    let address = address.parse::<IpAddr>().map_err(|_| invalid())?.to_canonical();
    let most = if address.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.unwrap_or(most);
    if prefix > most { Err(invalid()) } else { Ok((address, prefix)) }
}

/// Why ingress did not start.
#[derive(Debug, thiserror::Error)]
pub enum IngressError {
    #[error(transparent)]
    Listen(#[from] serve::inherit::ListenError),
    #[error(
        "the base domain {0:?} is not a host name in lower case, such as `localhost` or `apps.example.com`"
    )]
    BaseDomain(String),
    #[error("{text:?} is no address or block of trusted proxies: write it as `10.0.0.0/8` or `::1`")]
    TrustedProxy { text: String },
    #[error("no address to listen on: give ingress at least one, such as `127.0.0.1:8080`")]
    NoListener,
    #[error("the {name} of ingress is {value}, but must be at least {least}")]
    TooSmall { name: &'static str, value: usize, least: usize },
    #[error(transparent)]
    Worker(#[from] serve::WorkerError),
    #[error("the port that was taken can't be read")]
    Address(#[source] std::io::Error),
}
