//! A host's control API with all that it needs, and a client of it.

use std::sync::Arc;
use std::time::Duration;

use artifacts::{ArtifactStore, Digest};
use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use bytes::Bytes;
use control_api::{ControlApi, PublicUrls, fan_out};
use futures_util::StreamExt;
use model::{DeploymentId, Health, Seen};
use serde_json::{Value, json};
use store::{Channel, MasterKey, Observation, Store, StoreOptions};
use test_kit::database::TestDatabase;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::fakes::{FakeCatalog, FakeControl};

pub const CERTIFICATE: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

pub struct World {
    pub router: Router,
    pub store: Store,
    pub token: String,
    pub control: Arc<FakeControl>,
    pub catalog: Arc<FakeCatalog>,
    pub artifacts: ArtifactStore,
    pub shutdown: CancellationToken,
    _database: TestDatabase,
    _dir: tempfile::TempDir,
}

impl World {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let artifacts = ArtifactStore::open(dir.path().join("sources")).unwrap();
        Self::with_artifacts(dir, artifacts).await
    }

    pub async fn with_artifacts(dir: tempfile::TempDir, artifacts: ArtifactStore) -> Self {
        let database = TestDatabase::create().await;
        let store = Store::connect(database.url(), StoreOptions::default()).await.unwrap();
        let store = store.with_master_key(MasterKey::from_bytes([7; 32]));
        let token = store.api_token_ensure_admin().await.unwrap().unwrap();
        let (changes, _) = tokio::sync::broadcast::channel(1000);
        let all =
            [Channel::Projects, Channel::Deployments, Channel::Machines, Channel::Events, Channel::Hostnames];
        tokio::spawn(fan_out(store.listen(&all).await.unwrap(), changes.clone()));
        let control = Arc::new(FakeControl::default());
        let catalog = Arc::new(FakeCatalog::default());
        let shutdown = CancellationToken::new();
        let router = ControlApi {
            store: store.clone(),
            artifacts: artifacts.clone(),
            control: control.clone(),
            catalog: catalog.clone(),
            changes,
            urls: PublicUrls {
                base_domain: "localhost".to_owned(),
                ingress_scheme: "http".to_owned(),
                ingress_port: 8080,
                join_command: "hythe-agent join --token {token}".to_owned(),
            },
            host_certificate_sha256: CERTIFICATE.to_owned(),
            metrics: Arc::new(|| "hythe_up 1\n".to_owned()),
            grace: Duration::from_secs(60),
            shutdown: shutdown.clone(),
        }
        .router();
        Self { router, store, token, control, catalog, artifacts, shutdown, _database: database, _dir: dir }
    }

    pub fn request(&self, method: Method, path: &str) -> Call<'_> {
        let request = Request::builder().method(method).uri(path);
        let request = request.header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        Call { world: self, request: request.body(Body::empty()).unwrap() }
    }

    pub fn get(&self, path: &str) -> Call<'_> {
        self.request(Method::GET, path)
    }

    pub fn post(&self, path: &str, body: Value) -> Call<'_> {
        self.request(Method::POST, path).json(body)
    }

    pub fn put(&self, path: &str, body: Value) -> Call<'_> {
        self.request(Method::PUT, path).json(body)
    }

    pub fn delete(&self, path: &str) -> Call<'_> {
        self.request(Method::DELETE, path)
    }

    /// A project of this slug.
    pub async fn project(&self, slug: &str) -> Value {
        self.post("/v1/projects", json!({"slug": slug})).is(StatusCode::CREATED).await
    }

    /// A deployment of the project, made where it is missing.
    pub async fn deployment(&self, slug: &str) -> DeploymentId {
        if self.get(&format!("/v1/projects/{slug}")).send().await.status == StatusCode::NOT_FOUND {
            self.project(slug).await;
        }
        let path = format!("/v1/projects/{slug}/deployments");
        let body = json!({"runtimeType": "process", "spec": {"command": ["serve"]}, "services": [{"name": "web", "port": 3000}]});
        let made = self.post(&path, body).is(StatusCode::CREATED).await;
        made["id"].as_str().unwrap().parse().unwrap()
    }

    /// What a reconciler would write.
    pub async fn observe(&self, deployment: DeploymentId, seen: Seen, incarnation: u64, health: Health) {
        let leased = self
            .store
            .deployment_lease_due(uuid::Uuid::now_v7(), Duration::from_secs(60), 100)
            .await
            .unwrap();
        for leased in leased {
            if leased.deployment.id == deployment {
                let observation = Observation {
                    seen,
                    incarnation,
                    generation: leased.deployment.generation,
                    detail: Some(format!("seen {seen}")),
                    finished_operation: false,
                    failures: 0,
                    last_error: None,
                    next_action_in: Some(Duration::ZERO),
                    health: (seen == Seen::Running).then_some((health, None)),
                };
                self.store.deployment_observe(&leased.lease, observation).await.unwrap();
            }
            self.store.deployment_release(&leased.lease).await.unwrap();
        }
    }
}

/// A request to be sent.
pub struct Call<'a> {
    world: &'a World,
    request: Request<Body>,
}

impl Call<'_> {
    pub fn json(self, body: Value) -> Self {
        self.header("content-type", "application/json").bytes(body.to_string())
    }

    pub fn bytes(mut self, body: impl Into<Bytes>) -> Self {
        *self.request.body_mut() = Body::from(body.into());
        self
    }

    /// Without a value: the header is taken away.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        let headers = self.request.headers_mut();
        match value {
            "" => drop(headers.remove(name)),
            value => drop(headers.insert(name, value.parse().unwrap())),
        }
        self
    }

    pub fn key(self, key: &str) -> Self {
        self.header("idempotency-key", key)
    }

    /// Sends, and reads the answer to its end.
    pub async fn send(self) -> Answer {
        self.detached().await
    }

    /// As [`send`](Self::send), for a task of its own.
    pub fn detached(self) -> impl Future<Output = Answer> + Send + 'static {
        let sent = answer(self.world.router.clone(), self.request);
        async move { read(sent.await).await }
    }

    /// Sends, and lets the answer be read.
    pub async fn stream(self) -> Streamed {
        answer(self.world.router.clone(), self.request).await
    }

    /// The JSON of an answer with this status.
    #[track_caller]
    pub fn is(self, status: StatusCode) -> impl Future<Output = Value> {
        let at = std::panic::Location::caller();
        let sent = self.send();
        async move {
            let answer = sent.await;
            assert_eq!(answer.status, status, "{at}: {}", String::from_utf8_lossy(&answer.body));
            answer.json()
        }
    }

    /// The problem of this code.
    #[track_caller]
    pub fn fails(self, code: &str) -> impl Future<Output = Problem> {
        let at = std::panic::Location::caller();
        let path = self.request.uri().path().to_owned();
        let sent = self.send();
        async move {
            let answer = sent.await;
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            let problem: api_types::Problem =
                serde_json::from_str(&text).unwrap_or_else(|_| panic!("{at}: {} {text}", answer.status));
            assert_eq!(problem.code, code, "{at}: {text}");
            let (_, status, title) = api_types::code::ALL.iter().find(|(known, ..)| *known == code).unwrap();
            assert_eq!(
                (answer.status.as_u16(), problem.status, problem.title.as_str()),
                (*status, *status, *title),
                "{at}"
            );
            assert_eq!(answer.headers["content-type"], api_types::PROBLEM_JSON, "{at}");
            assert_eq!(answer.headers["x-request-id"], problem.request_id, "{at}");
            assert_eq!(problem.r#type, format!("urn:hythe:problem:{code}"), "{at}");
            assert_eq!(problem.instance, path, "{at}");
            Problem { problem, headers: answer.headers, at }
        }
    }
}

async fn answer(router: Router, request: Request<Body>) -> Streamed {
    let response = router.oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    Streamed {
        status: parts.status,
        headers: parts.headers,
        body: body.into_data_stream(),
        buffer: String::new(),
    }
}

async fn read(streamed: Streamed) -> Answer {
    let mut body = Vec::new();
    let mut is_whole = true;
    let mut rest = streamed.body;
    while let Some(chunk) = rest.next().await {
        match chunk {
            Ok(chunk) => body.extend_from_slice(&chunk),
            Err(_) => is_whole = false,
        }
    }
    Answer { status: streamed.status, headers: streamed.headers, body, is_whole }
}

/// An answer, read.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// Not broken off.
    pub is_whole: bool,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The values of a stream of lines.
    pub fn lines(&self) -> Vec<Value> {
        let text = std::str::from_utf8(&self.body).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A problem, checked for its form.
pub struct Problem {
    pub problem: api_types::Problem,
    pub headers: HeaderMap,
    at: &'static std::panic::Location<'static>,
}

impl Problem {
    /// What the detail must say.
    pub fn says(self, part: &str) -> Self {
        assert!(
            self.problem.detail.contains(part),
            "{}: {:?} does not say {part:?}",
            self.at,
            self.problem.detail
        );
        self
    }

    /// A field that must be named, and what is said of it.
    pub fn names(self, pointer: &str, part: &str) -> Self {
        let found =
            self.problem.errors.iter().any(|error| error.pointer == pointer && error.message.contains(part));
        assert!(found, "{}: {:?} does not name {pointer} with {part:?}", self.at, self.problem.errors);
        self
    }
}

/// An answer that goes on.
pub struct Streamed {
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: BodyDataStream,
    buffer: String,
}

impl Streamed {
    /// The next block that ends with this.
    async fn next_block(&mut self, end: &str) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.buffer.split_once(end) {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.buffer = rest;
                return Some(block);
            }
            let chunk = self.body.next().await?.unwrap();
            self.buffer.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The next server-sent event: its id and data. None at the end.
    pub async fn event(&mut self) -> Option<(String, Value)> {
        loop {
            let block = self.next_block("\n\n").await?;
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            if let Some(data) = field("data:") {
                return Some((
                    field("id:").unwrap_or_default().to_owned(),
                    serde_json::from_str(data).unwrap(),
                ));
            }
        }
    }

    /// The next line.
    pub async fn line(&mut self) -> Option<Value> {
        Some(serde_json::from_str(&self.next_block("\n").await?).unwrap())
    }
}

/// A small archive, and its digest.
pub fn archive(content: &str) -> (Vec<u8>, Digest) {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "index.html", content.as_bytes()).unwrap();
    let bytes = zstd::encode_all(tar.into_inner().unwrap().as_slice(), 1).unwrap();
    let digest = Digest::of(&bytes);
    (bytes, digest)
}
