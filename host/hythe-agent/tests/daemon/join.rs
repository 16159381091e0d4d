//! Joining a host with a token.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use agent_api::{RegistrationRequest, RegistrationResponse};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;

use crate::machine::PROGRAM;

/// A host that answers every registration with this, and keeps what it was sent.
async fn host(status: u16, body: String) -> (u16, Arc<Mutex<Vec<RegistrationRequest>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (seen, body) = (seen.clone(), body.clone());
            let answer = hyper::service::service_fn(move |request: http::Request<Incoming>| {
                let (seen, body) = (seen.clone(), body.clone());
                async move {
                    assert_eq!(request.uri().path(), "/v1/machines/register");
                    let sent = request.into_body().collect().await.unwrap().to_bytes();
                    seen.lock().unwrap().push(serde_json::from_slice(&sent).unwrap());
                    let response =
                        http::Response::builder().status(status).body(Full::new(Bytes::from(body)));
                    Ok::<_, std::convert::Infallible>(response.unwrap())
                }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer),
            );
        }
    });
    (port, asked)
}

async fn join(data: &std::path::Path, host: String, token: String) -> (bool, String) {
    let mut command = Command::new(PROGRAM);
    command
        .args(["join", "--name", "left", "--port", "9000", "--host", &host, "--token", &token, "--data-dir"])
        .arg(data);
    let Output { status, stdout, stderr } =
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    (status.success(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

fn token() -> String {
    format!("amt_{}", "ab".repeat(24))
}

#[tokio::test]
async fn a_machine_joins_once_and_keeps_its_identity_to_itself() {
    let dir = tempfile::tempdir().unwrap();
    let identity = RegistrationResponse {
        machine_id: "mach_01h455vb4pex5vsknk084sn02q".to_owned(),
        shared_key: "00".repeat(32),
        host_certificate_sha256: "11".repeat(32),
    };
    let (port, asked) = host(201, serde_json::to_string(&identity).unwrap()).await;
    let url = format!("http://127.0.0.1:{port}");
    let (joined, said) = join(dir.path(), url.clone(), token()).await;
    assert!(joined && said.contains("joined as mach_01h455vb4pex5vsknk084sn02q"), "{said}");
    let path = dir.path().join("identity.json");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(
        serde_json::from_slice::<RegistrationResponse>(&std::fs::read(path).unwrap()).unwrap(),
        identity
    );
    let request = asked.lock().unwrap().pop().unwrap();
    assert_eq!(
        (request.address.as_str(), request.port, request.facts.name.as_str()),
        ("127.0.0.1", 9000, "left")
    );
    assert!(request.facts.cpu_count > 0 && request.facts.memory_bytes > 0);
    let certificate =
        Command::new(PROGRAM).args(["certificate", "--data-dir"]).arg(dir.path()).output().unwrap();
    assert_eq!(String::from_utf8(certificate.stdout).unwrap().trim(), request.certificate_sha256);

    let (joined, said) = join(dir.path(), url, token()).await;
    assert!(!joined && said.contains("has joined as mach_01h455vb4pex5vsknk084sn02q already"), "{said}");
}

#[tokio::test]
async fn a_refusal_is_shown_as_the_host_says_it() {
    let dir = tempfile::tempdir().unwrap();
    let problem = r#"{"type":"about:blank","title":"Gone","status":410,"detail":"the token was used already: make a new one"}"#;
    let (port, _) = host(410, problem.to_owned()).await;
    let (joined, said) = join(dir.path(), format!("http://127.0.0.1:{port}"), token()).await;
    assert!(!joined && said.contains("the token was used already: make a new one"), "{said}");
    assert!(!dir.path().join("identity.json").exists());
}

#[tokio::test]
async fn what_can_t_be_right_is_said_before_anything_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let (port, asked) = host(500, String::new()).await;
    let (joined, said) = join(dir.path(), format!("http://127.0.0.1:{port}"), "amt_short".to_owned()).await;
    assert!(!joined && said.contains("the token is malformed"), "{said}");
    let (joined, said) = join(dir.path(), "http://hythe.invalid:8090".to_owned(), token()).await;
    assert!(!joined && said.contains("in clear over a network"), "{said}");
    assert!(asked.lock().unwrap().is_empty());
    let run = Command::new(PROGRAM)
        .args(["run", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8(run.stderr).unwrap();
    assert!(!run.status.success() && said.contains("has not joined a host yet"), "{said}");
}
