//! Connections that the daemon carries.

use agent_api::{WorkloadPhase, path};
use agent_client::{AgentError, Request};
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::machine::{Deployment, Machine, echo, echo_program, refusal, wait_until};

async fn echo_server(deployment: &Deployment<'_>) -> u16 {
    let source = deployment.machine.upload(&[("echo", &echo_program(), 0o755)]).await;
    let mut spec = echo(source);
    spec.env.insert("LATE".to_owned(), "late".to_owned());
    deployment.up(&spec).await.services[0].local_port
}

#[tokio::test]
async fn a_tcp_echo_passes_byte_for_byte_with_half_close() {
    let machine = Machine::start().await;
    let deployment = machine.deployment();
    let port = echo_server(&deployment).await;
    let mut sent = vec![0; 1 << 20];
    getrandom::fill(&mut sent).unwrap();

    let client = machine.client();
    let tunnel = client.tunnel(&deployment.id.to_string(), 1, port).await.unwrap();
    let (mut read, mut write) = tokio::io::split(tunnel);
    let writing = async {
        write.write_all(&sent).await.unwrap();
        // The server answers this with its own last words: the other direction is still open.
        write.shutdown().await.unwrap();
    };
    let reading = async {
        let mut received = Vec::new();
        read.read_to_end(&mut received).await.unwrap();
        received
    };
    let ((), received) = tokio::join!(writing, reading);
    assert_eq!(received.len(), sent.len() + b"<end>".len());
    assert!(received.starts_with(&sent) && received.ends_with(b"<end>"));
}

#[tokio::test]
async fn many_tunnels_at_once_don_t_mix() {
    let machine = Machine::start().await;
    let deployment = machine.deployment();
    let port = echo_server(&deployment).await;
    let client = machine.client();
    let one = async |number: usize| {
        let mut tunnel = client.tunnel(&deployment.id.to_string(), 1, port).await.unwrap();
        let sent = format!("tunnel {number}").repeat(5000);
        let (mut read, mut write) = tokio::io::split(&mut tunnel);
        let writing = async {
            write.write_all(sent.as_bytes()).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let mut received = String::new();
        let (_, ()) = tokio::join!(async { read.read_to_string(&mut received).await.unwrap() }, writing);
        assert_eq!(received, sent + "<end>");
    };
    futures_util::future::join_all((0..50).map(one)).await;
}

#[tokio::test]
async fn only_the_workloads_own_ports_and_its_present_incarnation_are_reached() {
    let machine = Machine::start().await;
    let mut deployment = machine.deployment();
    let port = echo_server(&deployment).await;
    let id = deployment.id.to_string();
    let client = machine.client();

    // A port that one of its processes listens on, though no service declares it.
    let late: u16 = deployment.file("late", |text| !text.is_empty()).await.parse().unwrap();
    let mut tunnel = client.tunnel(&id, 1, late).await.unwrap();
    tunnel.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    tunnel.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"hello");
    let local = async |name: String| -> Result<agent_api::LocalPort, AgentError> {
        client.send(Request { path: path::port(&id, &name), ..Request::default() }).await?.json(1000).await
    };
    assert_eq!(local("web".to_owned()).await.unwrap().local_port, port);
    assert_eq!(local(late.to_string()).await.unwrap().local_port, late);

    // The daemon's own port, and that of another workload, are not.
    let foreign = machine.endpoint().port;
    assert_eq!(refusal(client.tunnel(&id, 1, foreign).await).0, StatusCode::NOT_FOUND);
    assert_eq!(refusal(local(foreign.to_string()).await).0, StatusCode::NOT_FOUND);
    assert_eq!(refusal(local("nothing".to_owned()).await).0, StatusCode::NOT_FOUND);
    let other = machine.deployment();
    assert_eq!(refusal(client.tunnel(&other.id.to_string(), 1, port).await).0, StatusCode::NOT_FOUND);

    assert_eq!(refusal(client.tunnel(&id, 2, port).await).0, StatusCode::CONFLICT);
    deployment.operation += 1;
    deployment.stop(0).await.unwrap();
    deployment.until(WorkloadPhase::Stopped).await;
    let (status, problem) = refusal(client.tunnel(&id, 1, port).await);
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{problem:?}");
}

#[tokio::test]
async fn the_end_of_the_workload_ends_its_tunnels() {
    let machine = Machine::start().await;
    let mut deployment = machine.deployment();
    let port = echo_server(&deployment).await;
    let mut tunnel = machine.client().tunnel(&deployment.id.to_string(), 1, port).await.unwrap();
    deployment.operation += 1;
    deployment.stop(0).await.unwrap();
    wait_until("the tunnel ends", async || {
        let mut byte = [0];
        match tunnel.read(&mut byte).await {
            Ok(0) | Err(_) => Some(()),
            Ok(_) => None,
        }
    })
    .await;
}
