//! Who may speak to the daemon, and whom the host believes.

use std::sync::Arc;

use agent_api::{DaemonHealth, header};
use agent_client::handshake::{self, Proofs};
use agent_client::{AgentClient, AgentError, HostIdentity};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::machine::Machine;

type Sender = SendRequest<Empty<bytes::Bytes>>;

/// A connection by hand, with the right certificates.
async fn connect(machine: &Machine) -> (Sender, Proofs) {
    let endpoint = machine.endpoint();
    let config = handshake::client_config(machine.host.certificate(), &endpoint.certificate_sha256).unwrap();
    let stream = TcpStream::connect(("127.0.0.1", endpoint.port)).await.unwrap();
    let name = ServerName::try_from("hythe-agent").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let proofs = Proofs::new(stream.get_ref().1, &endpoint.machine_id, &machine.shared_key).unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    (sender, proofs)
}

async fn ask(
    sender: &mut Sender,
    method: Method,
    path: &str,
    authorization: Option<&str>,
) -> http::Response<bytes::Bytes> {
    let mut request = Request::builder().method(method).uri(path).header("host", "hythe-agent");
    if let Some(authorization) = authorization {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    let (head, body) = sender.send_request(request.body(Empty::new()).unwrap()).await.unwrap().into_parts();
    http::Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn without_a_proof_only_health_is_answered() {
    let machine = Machine::start().await;
    let (mut sender, proofs) = connect(&machine).await;
    let health = ask(&mut sender, Method::GET, "/health", None).await;
    assert_eq!(serde_json::from_slice::<DaemonHealth>(health.body()).unwrap().status, "ok");
    assert!(!health.headers().contains_key(header::PROOF));
    for (method, path) in [
        (Method::GET, "/v1/status"),
        (Method::POST, "/health"),
        (Method::PUT, "/v1/sources/00"),
        (Method::CONNECT, "127.0.0.1:1"),
        (Method::GET, "/nothing"),
    ] {
        let refused = ask(&mut sender, method, path, None).await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
    // Once proven, the connection is.
    let proven = ask(&mut sender, Method::GET, "/v1/status", Some(&proofs.authorization())).await;
    assert_eq!(proven.status(), StatusCode::OK);
    assert!(proofs.proves_daemon(proven.headers()[header::PROOF].as_bytes()));
    assert_eq!(ask(&mut sender, Method::GET, "/v1/status", None).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_proof_of_another_connection_is_refused() {
    let machine = Machine::start().await;
    let (mut first, proofs) = connect(&machine).await;
    assert_eq!(
        ask(&mut first, Method::GET, "/v1/status", Some(&proofs.authorization())).await.status(),
        StatusCode::OK
    );
    let (mut second, own) = connect(&machine).await;
    let replayed = ask(&mut second, Method::GET, "/v1/status", Some(&proofs.authorization())).await;
    assert_eq!(replayed.status(), StatusCode::UNAUTHORIZED);
    assert!(!replayed.headers().contains_key(header::PROOF));
    assert_eq!(
        ask(&mut second, Method::GET, "/v1/status", Some(&own.authorization())).await.status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_wrong_key_pin_or_certificate_is_told_apart() {
    let machine = Machine::start().await;
    machine.client().health().await.unwrap();

    let wrong_key = agent_client::AgentEndpoint { shared_key: vec![1; 32].into(), ..machine.endpoint() };
    let error = AgentClient::new(&machine.host, wrong_key).health().await.unwrap_err();
    assert!(matches!(error, AgentError::Unauthenticated { .. }), "{error}");
    assert!(!error.is_passing());

    let wrong_pin = agent_client::AgentEndpoint { certificate_sha256: "0".repeat(64), ..machine.endpoint() };
    let error = AgentClient::new(&machine.host, wrong_pin).health().await.unwrap_err();
    assert!(
        matches!(&error, AgentError::PinMismatch { found, .. } if *found == machine.endpoint().certificate_sha256),
        "{error}"
    );

    let stranger = HostIdentity::load_or_create(&machine.folder.path().join("stranger")).unwrap();
    for _ in 0..20 {
        let error = AgentClient::new(&stranger, machine.endpoint()).health().await.unwrap_err();
        assert!(
            matches!(&error, AgentError::Unauthenticated { reason, .. } if reason.contains("refuses the host's certificate")),
            "{error}"
        );
    }

    let nobody = agent_client::AgentEndpoint { port: 1, ..machine.endpoint() };
    let error = AgentClient::new(&machine.host, nobody).health().await.unwrap_err();
    assert!(matches!(error, AgentError::Connect { .. }) && error.is_passing(), "{error}");
}

#[tokio::test]
async fn a_daemon_without_the_key_is_not_believed() {
    // It has the machine's certificate, and takes any proof, but doesn't know the shared key.
    let machine = Machine::joined();
    let certificate = agent_client::Certificate::load_or_create_daemon(&machine.data()).unwrap();
    let config = handshake::server_config(&certificate, machine.host.certificate_sha256()).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint =
        agent_client::AgentEndpoint { port: listener.local_addr().unwrap().port(), ..machine.endpoint() };
    tokio::spawn(async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = acceptor.accept(stream).await.unwrap();
            let answer = hyper::service::service_fn(async |_| {
                let body = r#"{"status":"ok","version":"0","uptimeMs":0}"#.to_owned();
                let response = http::Response::builder().header(header::PROOF, "0".repeat(64)).body(body);
                Ok::<_, std::convert::Infallible>(response.unwrap())
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer),
            );
        }
    });
    let error = AgentClient::new(&machine.host, endpoint).health().await.unwrap_err();
    assert!(
        matches!(&error, AgentError::Unauthenticated { reason, .. } if reason.contains("daemon's proof is wrong")),
        "{error}"
    );
}

#[tokio::test]
async fn another_protocol_or_none_is_refused() {
    let machine = Machine::start().await;
    let endpoint = machine.endpoint();
    for alpn in [vec![], vec![b"http/1.1".to_vec()]] {
        let mut config =
            handshake::client_config(machine.host.certificate(), &endpoint.certificate_sha256).unwrap();
        config.alpn_protocols = alpn;
        let stream = TcpStream::connect(("127.0.0.1", endpoint.port)).await.unwrap();
        let name = ServerName::try_from("hythe-agent").unwrap();
        let Ok(stream) = TlsConnector::from(Arc::new(config)).connect(name, stream).await else { continue };
        let (mut sender, connection) =
            http1::handshake::<_, Empty<bytes::Bytes>>(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder().uri("/health").header("host", "x").body(Empty::new()).unwrap();
        sender.send_request(request).await.unwrap_err();
    }
}

#[tokio::test]
async fn a_connection_that_the_daemon_closed_while_idle_is_not_a_failure() {
    let mut machine = Machine::start().await;
    let client = machine.client();
    for _ in 0..3 {
        client.health().await.unwrap();
        machine.keep_port = Some(client.endpoint().port);
        machine.kill();
        machine.run().await;
    }
    client.health().await.unwrap();
    machine.kill();
    assert!(client.health().await.unwrap_err().is_passing());
}
