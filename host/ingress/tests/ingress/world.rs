//! A running ingress with origins behind it, and a client that says exactly the bytes it is told.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use ingress::{
    DeploymentRoute, Endpoint, FetchError, FetcherSource, Ingress, IngressConfig, Lease, RouterFactory,
    Routes, WakeError, Waker,
};
use model::{DeploymentId, Health, ProjectId, Scheme, Seen, Service, WakePolicy, Wanted};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};

/// Nothing in these tests takes long; what hangs ends here, with a failure.
const PATIENCE: Duration = Duration::from_secs(30);

pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("this hangs")
}

type Answer = Result<Lease, FetchError>;

/// Where deployments take requests, by (deployment, incarnation, service).
#[derive(Default)]
pub struct Source {
    pub leases: Mutex<HashMap<(DeploymentId, u64, String), Answer>>,
    pub asked: AtomicUsize,
}

#[async_trait]
impl FetcherSource for Source {
    async fn fetcher(
        &self,
        deployment: DeploymentId,
        incarnation: u64,
        service: &str,
    ) -> Result<Lease, FetchError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let key = (deployment, incarnation, service.to_owned());
        self.leases.lock().get(&key).cloned().unwrap_or(Err(FetchError::NotFound))
    }
}

/// Starts nothing until it is let, and says who was to be started.
pub struct TestWaker {
    pub asked: mpsc::UnboundedSender<DeploymentId>,
    pub count: AtomicUsize,
    pub gate: Semaphore,
    pub answer: Mutex<Result<(), WakeError>>,
}

#[async_trait]
impl Waker for TestWaker {
    async fn wake(&self, deployment: DeploymentId) -> Result<(), WakeError> {
        self.count.fetch_add(1, Ordering::SeqCst);
        let _ = self.asked.send(deployment);
        self.gate.acquire().await.unwrap().forget();
        self.answer.lock().clone()
    }
}

pub struct World {
    pub ingress: Ingress,
    pub address: SocketAddr,
    pub routes: Arc<Routes>,
    pub source: Arc<Source>,
    pub waker: Arc<TestWaker>,
    pub wakes: mpsc::UnboundedReceiver<DeploymentId>,
    pub metrics: telemetry::Metrics,
}

impl World {
    pub async fn new() -> Self {
        Self::with(|_| ()).await
    }

    pub async fn with(set: impl FnOnce(&mut IngressConfig)) -> Self {
        Self::start(set, None).await
    }

    /// With somebody who decides about requests.
    pub async fn routed(routers: Arc<dyn RouterFactory>) -> Self {
        Self::start(|_| (), Some(routers)).await
    }

    async fn start(set: impl FnOnce(&mut IngressConfig), routers: Option<Arc<dyn RouterFactory>>) -> Self {
        let mut config = IngressConfig {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()],
            workers: 1,
            ..IngressConfig::default()
        };
        set(&mut config);
        let routes = Arc::new(Routes::new(&config.base_domain));
        let source = Arc::new(Source::default());
        let (asked, wakes) = mpsc::unbounded_channel();
        let waker = Arc::new(TestWaker {
            asked,
            count: AtomicUsize::new(0),
            gate: Semaphore::new(0),
            answer: Mutex::new(Ok(())),
        });
        let metrics = telemetry::Metrics::new();
        let ingress = Ingress::bind(
            config,
            Arc::clone(&routes),
            Arc::clone(&source) as Arc<dyn FetcherSource>,
            Arc::clone(&waker) as Arc<dyn Waker>,
            routers,
            &metrics,
        )
        .await
        .unwrap();
        let address = ingress.local_addrs()[0];
        Self { ingress, address, routes, source, waker, wakes, metrics }
    }

    /// A running primary deployment with a service `web` on port 3000 that leads to the address.
    pub fn deploy(&self, slug: &str, origin: SocketAddr) -> DeploymentRoute {
        let route = route(slug);
        self.lease(&route, "web", Endpoint::Tcp(origin));
        self.routes.upsert(route.clone());
        route
    }

    pub fn lease(&self, route: &DeploymentRoute, service: &str, endpoint: Endpoint) {
        self.set_lease(route, service, Ok(Lease::new(endpoint, route.incarnation)));
    }

    pub fn set_lease(&self, route: &DeploymentRoute, service: &str, lease: Result<Lease, FetchError>) {
        let key = (route.deployment, route.incarnation, service.to_owned());
        self.source.leases.lock().insert(key, lease);
    }

    pub async fn connect(&self) -> Raw {
        Raw::connect(self.address).await
    }

    /// One request on a connection of its own.
    pub async fn ask(&self, request: &str) -> Reply {
        let mut client = self.connect().await;
        client.send(request).await;
        client.reply().await
    }

    /// GET / of a host.
    pub async fn get(&self, host: &str) -> Reply {
        self.ask(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await
    }
}

pub fn route(slug: &str) -> DeploymentRoute {
    DeploymentRoute {
        deployment: DeploymentId::new(),
        project: ProjectId::new(),
        slug: slug.parse().unwrap(),
        is_primary: true,
        incarnation: 1,
        seen: Seen::Running,
        wanted: Wanted::Running,
        health: Health::Healthy,
        wake: WakePolicy::Dynamic,
        services: vec![service("web", 3000)],
    }
}

pub fn service(name: &str, port: u16) -> Service {
    Service { name: name.parse().unwrap(), port, scheme: Scheme::Http }
}

/// A client of bytes.
pub struct Raw {
    pub stream: TcpStream,
    /// Read and not yet used.
    pub buffer: Vec<u8>,
}

#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: String,
}

impl Reply {
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str()).collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The code in one of ingress' own answers.
    pub fn code(&self) -> String {
        let json: serde_json::Value = serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {} {}", self.head, self.text()));
        assert_eq!(json["requestId"].as_str().unwrap().len(), 32);
        assert!(!json["message"].as_str().unwrap().is_empty());
        json["error"].as_str().unwrap().to_owned()
    }
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Self {
        Self { stream: within(TcpStream::connect(address)).await.unwrap(), buffer: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within(self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Reads some more. False at the end.
    pub async fn more(&mut self) -> bool {
        let mut piece = [0; 16 * 1024];
        match within(self.stream.read(&mut piece)).await {
            Ok(0) | Err(_) => false,
            Ok(read) => {
                self.buffer.extend_from_slice(&piece[..read]);
                true
            }
        }
    }

    /// Reads until there is so much.
    pub async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            assert!(self.more().await, "ended after {:?}", String::from_utf8_lossy(&self.buffer));
        }
        self.buffer.drain(..length).collect()
    }

    pub async fn until(&mut self, mark: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.buffer.windows(mark.len()).position(|window| window == mark) {
                return self.buffer.drain(..at + mark.len()).collect();
            }
            assert!(self.more().await, "ended after {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }

    /// Whether the other side closes without another byte.
    pub async fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.more().await
    }

    pub async fn head(&mut self) -> Reply {
        let head = String::from_utf8(self.until(b"\r\n\r\n").await).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .map(|line| {
                line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())).unwrap()
            })
            .collect();
        Reply { status, head, headers, body: Vec::new(), trailers: String::new() }
    }

    /// An answer to anything but HEAD.
    pub async fn reply(&mut self) -> Reply {
        let mut reply = self.head().await;
        if reply.status == 204 || reply.status == 304 || reply.status < 200 {
            return reply;
        }
        if let Some(length) = reply.all("content-length").first() {
            reply.body = self.exactly(length.parse().unwrap()).await;
        } else if reply.all("transfer-encoding") == ["chunked"] {
            loop {
                let size = self.until(b"\r\n").await;
                let size = usize::from_str_radix(std::str::from_utf8(&size).unwrap().trim(), 16).unwrap();
                if size == 0 {
                    break;
                }
                let chunk = self.exactly(size).await;
                reply.body.extend(chunk);
                self.until(b"\r\n").await;
            }
            loop {
                let line = self.until(b"\r\n").await;
                if line == b"\r\n" {
                    break;
                }
                reply.trailers.push_str(std::str::from_utf8(&line).unwrap());
            }
        } else {
            while self.more().await {}
            reply.body = std::mem::take(&mut self.buffer);
        }
        reply
    }
}
