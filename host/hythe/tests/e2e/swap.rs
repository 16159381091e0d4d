//! A project moves from one runtime to the other by one line of `hythe.toml`, under load, with no request lost.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::{SinkExt, StreamExt};
use reqwest::Method;
use serde_json::Value;
use test_kit::host::{HostOptions, TestHost};
use test_kit::process::program;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

const HOST: &str = "app.localhost";
/// Length of the stream that lives through the move.
const STREAM_SECONDS: u64 = 30;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_moves_without_a_lost_request() -> Result<()> {
    let host = Arc::new(TestHost::start(HostOptions::default()).await?);
    let machine = host.machine("machine-1").await?;
    let folder = tempfile::tempdir()?;
    std::fs::create_dir(folder.path().join("public"))?;
    for (name, mode, bytes) in crate::worlds::application()? {
        let file = folder.path().join(name);
        std::fs::write(&file, bytes)?;
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    }
    write_manifest(folder.path(), "process")?;
    deploy(&host, folder.path()).await?;
    let old = primary(&host).await?;
    ensure!(old["runtimeType"] == "process", "{old}");

    // What must live to its end on the old one.
    let stream = tokio::spawn(long_stream(host.clone()));
    let moved = Arc::new(AtomicBool::new(false));
    let socket = tokio::spawn(web_socket(host.clone(), moved.clone()));
    // What must never fail.
    let stop = Arc::new(AtomicBool::new(false));
    let counts = Arc::new(Counts::default());
    let load: Vec<_> = (0..4)
        .map(|number| tokio::spawn(requests(host.clone(), number, stop.clone(), counts.clone())))
        .collect();

    write_manifest(folder.path(), "machine")?;
    deploy(&host, folder.path()).await?;
    let new = primary(&host).await?;
    ensure!(new["runtimeType"] == "machine" && new["id"] != old["id"], "{new}");
    moved.store(true, Ordering::SeqCst);
    let at_move = counts.requests.load(Ordering::SeqCst);
    // As many again on the new one.
    test_kit::process::eventually("requests on the new deployment", async || {
        Ok((counts.requests.load(Ordering::SeqCst) > at_move + 500).then_some(()))
    })
    .await?;
    let streamed = stream.await??;
    ensure!(streamed, "the stream did not come to its end");
    ensure!(socket.await??, "the WebSocket did not live on");
    stop.store(true, Ordering::SeqCst);
    for worker in load {
        worker.await??;
    }
    ensure!(
        counts.failed.load(Ordering::SeqCst) == 0,
        "{} requests failed",
        counts.failed.load(Ordering::SeqCst)
    );
    // Both runs are known by their own hosts still.
    let label = old["id"].as_str().context("no id")?.replace('_', "-");
    let answer = host.browse(Method::GET, &format!("{label}.localhost"), "/healthz")?.send().await?;
    ensure!(
        answer.status().is_success(),
        "the old deployment is not reachable at its own host: {}",
        answer.status()
    );
    drop(machine);
    Ok(())
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    failed: AtomicU64,
}

fn write_manifest(folder: &Path, runtime: &str) -> Result<()> {
    let text = format!(
        "project = \"app\"\nruntime = \"{runtime}\"\ncommand = [\"./app\"]\n\n[services.web]\nport = 3000\n"
    );
    Ok(std::fs::write(folder.join("hythe.toml"), text)?)
}

async fn deploy(host: &TestHost, folder: &Path) -> Result<()> {
    let mut command = Command::new(program("hythe")?);
    command.arg("deploy").arg(folder).arg("--json");
    command.env("HYTHE_API", format!("http://{}", host.api)).env("HYTHE_TOKEN", host.token());
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    if !output.status.success() {
        bail!("hythe deploy: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

async fn primary(host: &TestHost) -> Result<Value> {
    let project: Value = host.call(Method::GET, "/v1/projects/app", None).await?;
    let id = project["primaryDeploymentId"].as_str().context("no primary")?;
    host.call(Method::GET, &format!("/v1/deployments/{id}"), None).await
}

async fn requests(
    host: Arc<TestHost>,
    number: usize,
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
) -> Result<()> {
    let client = reqwest::Client::builder().no_proxy().resolve(HOST, host.ingress).build()?;
    let base = format!("http://{HOST}:{}", host.ingress.port());
    let body = vec![b'x'; 64 * 1024];
    while !stop.load(Ordering::SeqCst) {
        let asks = number.is_multiple_of(2);
        let answer = if asks {
            client.get(format!("{base}/api/info")).send().await
        } else {
            client.post(format!("{base}/api/echo")).body(body.clone()).send().await
        };
        let good = match answer {
            Ok(answer) if answer.status().is_success() => {
                answer.bytes().await.is_ok_and(|bytes| asks || bytes.len() == body.len())
            }
            Ok(_) | Err(_) => false,
        };
        counts.requests.fetch_add(1, Ordering::SeqCst);
        if !good {
            counts.failed.fetch_add(1, Ordering::SeqCst);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

/// A body that the application sends over thirty seconds. Whether all of it came.
async fn long_stream(host: Arc<TestHost>) -> Result<bool> {
    let path = format!("/api/slow?ms={}", STREAM_SECONDS * 1000);
    let answer = host.browse(Method::GET, HOST, &path)?.send().await?;
    let status = answer.status();
    let mut bytes = answer.bytes_stream();
    let mut length = 0;
    while let Some(chunk) = bytes.next().await {
        length += chunk?.len();
    }
    Ok(status.is_success() && length > 0)
}

/// A WebSocket on the old deployment that still answers after the move.
async fn web_socket(host: Arc<TestHost>, moved: Arc<AtomicBool>) -> Result<bool> {
    let request = format!("ws://{HOST}:{}/ws?name=swap", host.ingress.port()).into_client_request()?;
    let stream = tokio::net::TcpStream::connect(host.ingress).await?;
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await?;
    let mut after = 0_u8;
    let mut number = 0_u32;
    while after < 50 {
        number += 1;
        let sent = number.to_be_bytes().to_vec();
        socket.send(Message::Binary(sent.clone().into())).await?;
        loop {
            match socket.next().await.context("the WebSocket was closed")?? {
                Message::Binary(bytes) if bytes == sent => break,
                Message::Close(_) => bail!("the WebSocket was closed"),
                _ => {}
            }
        }
        if moved.load(Ordering::SeqCst) {
            after += 1;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    socket.close(None).await.ok();
    Ok(true)
}
