//! A host that answers as a test tells it, and remembers what it was asked.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use clap::{CommandFactory, Parser};
use cli::{Command, Globals, Output};
use futures_util::stream;
use serde_json::Value;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: Method,
    /// With its query.
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Asked {
    /// `GET /v1/projects`
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn is(&self, method: &Method, prefix: &str) -> bool {
        self.method == *method && self.path.starts_with(prefix)
    }
}

pub struct Fake {
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Fake {
    /// Answers each request by `answer`, which also gets the number of earlier requests with the same
    /// method and path (without its query).
    pub async fn start<F>(answer: F) -> Self
    where
        F: Fn(&Asked, usize) -> Response + Send + Sync + 'static,
    {
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (memory, answer) = (Arc::clone(&asked), Arc::new(answer));
        let router = axum::Router::new().fallback(move |request: Request| {
            let (memory, answer) = (Arc::clone(&memory), Arc::clone(&answer));
            async move {
                let (head, body) = request.into_parts();
                let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
                let path = head.uri.path_and_query().unwrap().to_string();
                let now = Asked { method: head.method, path, headers: head.headers, body };
                let bare = |path: &str| path.split('?').next().unwrap().to_owned();
                let mut memory = memory.lock().unwrap();
                let same = |old: &&Asked| old.method == now.method && bare(&old.path) == bare(&now.path);
                let earlier = memory.iter().filter(same).count();
                memory.push(now.clone());
                answer(&now, earlier)
            }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, asked }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub fn lines(&self) -> Vec<String> {
        self.asked().iter().map(Asked::line).collect()
    }

    /// Runs a command line against it.
    pub async fn run(&self, arguments: &[&str]) -> Ran {
        self.run_in(Path::new("."), arguments).await
    }

    pub async fn run_in(&self, folder: &Path, arguments: &[&str]) -> Ran {
        run(&self.url, folder, arguments).await
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    pub code: u8,
    pub out: String,
    pub err: String,
}

#[derive(Parser)]
#[command(name = "hythe")]
struct Program {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub async fn run(api: &str, folder: &Path, arguments: &[&str]) -> Ran {
    let out = Captured::default();
    let (code, err) = run_to(api, folder, arguments, Box::new(out.clone())).await;
    Ran { code, out: out.text(), err }
}

/// Its exit code and stderr; stdout goes to `out`.
pub async fn run_to(
    api: &str,
    folder: &Path,
    arguments: &[&str],
    out: Box<dyn Write + Send>,
) -> (u8, String) {
    let words = [&["hythe", "--api", api, "--token", "hyt_test"], arguments].concat();
    let program = Program::try_parse_from(words).unwrap();
    let err = Captured::default();
    let output = Output::to_writers(program.globals.json, false, out, Box::new(err.clone()));
    let code = cli::run_with(&program.globals, program.command, &output, folder, Program::command()).await;
    (code, err.text())
}

pub fn json(status: u16, body: &Value) -> Response {
    Response::builder()
        .status(StatusCode::from_u16(status).unwrap())
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .unwrap()
}

pub fn problem(code: &str, detail: &str) -> Response {
    let (_, status, title) = api_types::code::ALL.iter().find(|(known, ..)| *known == code).unwrap();
    let body = serde_json::json!({
        "type": format!("urn:hythe:problem:{code}"), "title": title, "status": status, "detail": detail,
        "instance": "/", "code": code, "requestId": "req-1",
    });
    json(*status, &body)
}

pub fn nothing() -> Response {
    problem("not_found", "there is no such thing")
}

/// Text, then the connection breaks.
pub fn cut(text: &str) -> Response {
    let text = Bytes::from(text.to_owned());
    let parts = stream::unfold(Some(text), |text| async {
        match text {
            Some(text) if !text.is_empty() => Some((Ok(text), Some(Bytes::new()))),
            Some(_) => {
                // Lets the server send what it has before it hears of the end.
                tokio::task::yield_now().await;
                Some((Err(std::io::Error::other("cut")), None))
            }
            None => None,
        }
    });
    Response::new(Body::from_stream(parts))
}

pub fn text(text: impl Into<String>) -> Response {
    Response::new(Body::from(text.into()))
}

/// A folder with files.
pub fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop");
    std::fs::create_dir(&path).unwrap();
    for (name, content) in files {
        std::fs::write(path.join(name), content).unwrap();
    }
    (folder, path)
}
