//! Another process takes the place of the host: nothing is refused, nothing is cut, and a bad one changes nothing.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, Result, bail, ensure};
use futures_util::{SinkExt, StreamExt};
use reqwest::Method;
use rustix::process::Signal;
use test_kit::host::{HostOptions, TestHost, glob_postmaster};
use test_kit::process::{eventually, is_alive, program, signal};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::worlds::World;

const HOST: &str = "app.localhost";
/// Larger than all buffers between the application and a client that does not read.
const DOWNLOAD: u64 = 256 << 20;

/// A program in a folder of its own that can be replaced.
struct Installed {
    folder: tempfile::TempDir,
}

impl Installed {
    fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("hythe-test-").tempdir()?;
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))?;
        let installed = Self { folder };
        installed.install_built()?;
        Ok(installed)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("hythe")
    }

    /// The built program anew: another file, as a package manager does it.
    fn install_built(&self) -> Result<()> {
        let new = self.folder.path().join("new");
        std::fs::copy(program("hythe")?, &new)?;
        Ok(std::fs::rename(new, self.path())?)
    }

    fn install_script(&self, script: &str) -> Result<()> {
        let new = self.folder.path().join("new");
        std::fs::write(&new, format!("#!/bin/sh\n{script}\n"))?;
        std::fs::set_permissions(&new, PermissionsExt::from_mode(0o755))?;
        Ok(std::fs::rename(new, self.path())?)
    }
}

/// `hythe upgrade`
async fn upgrade(data_dir: &Path) -> Result<Output> {
    let mut command = Command::new(program("hythe")?);
    command.args(["upgrade", "--data-dir"]).arg(data_dir);
    Ok(tokio::task::spawn_blocking(move || command.output()).await??)
}

/// Has it take place; the pid of the new process.
async fn swap(host: &TestHost) -> Result<u32> {
    let old = host.pid()?;
    let output = upgrade(&host.data_dir()).await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let new = host.pid()?;
    ensure!(new != old && is_alive(new), "another process has the host");
    Ok(new)
}

#[derive(Default)]
struct Load {
    stop: AtomicBool,
    requests: AtomicU64,
    failures: parking_lot::Mutex<Vec<String>>,
}

impl Load {
    /// GETs or POSTs without a pause, on kept connections or each on a new one.
    async fn run(self: Arc<Self>, address: std::net::SocketAddr, number: usize) -> Result<()> {
        let body = vec![b'x'; 64 * 1024];
        let build = || reqwest::Client::builder().no_proxy().resolve(HOST, address).build();
        let kept = build()?;
        while !self.stop.load(Ordering::SeqCst) {
            let client = if number < 2 { kept.clone() } else { build()? };
            let answer = if number.is_multiple_of(2) {
                client.get(format!("http://{HOST}:{}/api/info", address.port())).send().await
            } else {
                client
                    .post(format!("http://{HOST}:{}/api/echo", address.port()))
                    .body(body.clone())
                    .send()
                    .await
            };
            let problem = match answer {
                Ok(answer) if answer.status().is_success() => match answer.bytes().await {
                    Ok(bytes) if number.is_multiple_of(2) || bytes.len() == body.len() => None,
                    Ok(bytes) => Some(format!("{} bytes came back", bytes.len())),
                    Err(error) => Some(format!("{error:?}")),
                },
                Ok(answer) => Some(format!("{}", answer.status())),
                Err(error) => Some(format!("{error:?}")),
            };
            self.requests.fetch_add(1, Ordering::SeqCst);
            self.failures.lock().extend(problem);
        }
        Ok(())
    }

    async fn more(&self, count: u64) -> Result<()> {
        let before = self.requests.load(Ordering::SeqCst);
        eventually("more requests", async || {
            Ok((self.requests.load(Ordering::SeqCst) >= before + count).then_some(()))
        })
        .await
    }
}

async fn web_socket(host: &TestHost) -> Result<WebSocketStream<TcpStream>> {
    let request = format!("ws://{HOST}:{}/ws?name=upgrade", host.ingress.port()).into_client_request()?;
    let stream = TcpStream::connect(host.ingress).await?;
    Ok(tokio_tungstenite::client_async(request, stream).await?.0)
}

async fn echoes(socket: &mut WebSocketStream<TcpStream>, text: &[u8]) -> Result<()> {
    socket.send(Message::Binary(text.to_vec().into())).await?;
    loop {
        match socket.next().await.context("the WebSocket was closed")?? {
            Message::Binary(bytes) if bytes == text => return Ok(()),
            Message::Close(_) => bail!("the WebSocket was closed"),
            _ => {}
        }
    }
}

async fn settled(world: &World) -> Result<()> {
    let deployment = world.deploy().await?;
    world.host.wait(deployment.id, "primary", |deployment| deployment.is_primary).await?;
    eventually("the project's host to answer", async || {
        let answer = world.host.browse(Method::GET, HOST, "/healthz")?.send().await?;
        Ok(answer.status().is_success().then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_binary_takes_over_without_a_lost_request() -> Result<()> {
    let installed = Installed::new()?;
    let options = HostOptions { program: Some(installed.path()), ..HostOptions::default() };
    let mut world = World::new("process", options).await?;
    settled(&world).await?;
    let first = world.host.pid()?;
    let postgres = glob_postmaster(&world.host.data_dir().join("postgres")).context("no Postgres")?;
    let agent = world.host.agent_pid("beside")?;

    let load = Arc::new(Load::default());
    let workers: Vec<_> =
        (0..4).map(|number| tokio::spawn(load.clone().run(world.host.ingress, number))).collect();
    let mut socket = web_socket(&world.host).await?;
    echoes(&mut socket, b"before").await?;
    let download =
        world.host.browse(Method::GET, HOST, &format!("/api/blob?bytes={DOWNLOAD}"))?.send().await?;
    let mut download = download.bytes_stream();
    let mut downloaded = download.next().await.context("nothing came")??.len() as u64;
    load.more(50).await?;

    installed.install_built()?;
    let second = swap(&world.host).await?;
    load.more(200).await?;
    ensure!(is_alive(first), "the first process has a WebSocket and a download");
    echoes(&mut socket, b"after the first").await?;

    // Again, while the first one still drains.
    installed.install_built()?;
    let third = swap(&world.host).await?;
    ensure!(third != second && third != first);
    load.more(200).await?;
    echoes(&mut socket, b"after the second").await?;
    eventually("the second process to end: nothing of it was open", async || {
        Ok((!is_alive(second)).then_some(()))
    })
    .await?;

    while let Some(chunk) = download.next().await {
        downloaded += chunk?.len() as u64;
    }
    ensure!(downloaded == DOWNLOAD, "{downloaded} bytes of the download came");
    echoes(&mut socket, b"at last").await?;
    socket.close(None).await?;
    while socket.next().await.is_some() {}
    let code = world.host.process().ended().await?;
    ensure!(code == Some(0), "the first process ended with {code:?}");
    load.stop.store(true, Ordering::SeqCst);
    for worker in workers {
        worker.await??;
    }
    let failures = load.failures.lock().clone();
    let requests = load.requests.load(Ordering::SeqCst);
    ensure!(failures.is_empty(), "{} of {requests} requests failed: {:?}", failures.len(), failures.first());
    println!("{requests} requests over two swaps, none failed");

    // What was adopted is what ran before, and the last process ends it.
    ensure!(glob_postmaster(&world.host.data_dir().join("postgres")) == Some(postgres), "Postgres ran on");
    ensure!(world.host.agent_pid("beside")? == agent, "the daemon ran on");
    ensure!(world.host.send(Method::GET, "/v1/projects/app", None).await?.0.is_success(), "the API answers");
    world.host.stop_successor().await?;
    for (what, pid) in [("Postgres", postgres), ("the daemon", agent)] {
        eventually(what, async || Ok((!is_alive(pid)).then_some(()))).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_binary_changes_nothing() -> Result<()> {
    let installed = Installed::new()?;
    let config = "[upgrade]\ntimeout = \"1s\"\n".to_owned();
    let options = HostOptions { program: Some(installed.path()), config, ..HostOptions::default() };
    let mut world = World::new("process", options).await?;
    settled(&world).await?;
    let first = world.host.pid()?;
    let postgres = glob_postmaster(&world.host.data_dir().join("postgres")).context("no Postgres")?;
    let mut socket = web_socket(&world.host).await?;
    let ended = "the new process ended before it served";
    for (script, expected) in [
        ("exit 1", ended),
        ("kill -9 $$", ended),
        ("exec sleep 1000", "did not serve within 1 s"),
        // It says something else.
        ("echo no >&2; exit 0", ended),
    ] {
        installed.install_script(script)?;
        let output = upgrade(&world.host.data_dir()).await?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && said.contains("goes on as it was"), "{script}: {said}");
        ensure!(said.contains(expected), "{script}: {said}");
        ensure!(world.host.pid()? == first, "{script}");
        echoes(&mut socket, script.as_bytes()).await?;
        let answer = world.host.browse(Method::GET, HOST, "/healthz")?.send().await?;
        ensure!(answer.status().is_success(), "{script}: {}", answer.status());
    }
    std::fs::remove_file(installed.path())?;
    let output = upgrade(&world.host.data_dir()).await?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(said.contains("can't start") && said.contains("No such file"), "{said}");
    ensure!(glob_postmaster(&world.host.data_dir().join("postgres")) == Some(postgres));
    ensure!(!world.host.process().has_ended()?);

    let nobody = tempfile::tempdir()?;
    let said = String::from_utf8_lossy(&upgrade(nobody.path()).await?.stderr).into_owned();
    ensure!(said.contains("no host runs with the data directory"), "{said}");
    world.host.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_configuration_is_taken_on_sighup() -> Result<()> {
    let mut world = World::new("process", HostOptions::default()).await?;
    settled(&world).await?;
    let host = &world.host;
    let (first, file) = (host.pid()?, host.config_file());
    let log = file.with_file_name("host.log");
    let config = std::fs::read_to_string(&file)?;

    std::fs::write(&file, format!("{config}\n[ingres]\n"))?;
    signal(first, Signal::HUP)?;
    eventually("word of the mistake", async || {
        let text = std::fs::read_to_string(&log)?;
        Ok((text.contains("the configuration stays as it was") && text.contains("did you mean `ingress`?"))
            .then_some(()))
    })
    .await?;
    ensure!(host.pid()? == first);

    let load = Arc::new(Load::default());
    let workers: Vec<_> = (0..4).map(|number| tokio::spawn(load.clone().run(host.ingress, number))).collect();
    load.more(50).await?;
    // Only what can't be in the configuration now: requests' heads of 8 KiB at most.
    std::fs::write(&file, format!("{config}\n[ingress.limits]\nmax_header_bytes = 8192\n"))?;
    signal(first, Signal::HUP)?;
    eventually("the first process to end", async || {
        Ok((host.pid()? != first && !is_alive(first)).then_some(()))
    })
    .await?;
    load.more(100).await?;
    load.stop.store(true, Ordering::SeqCst);
    for worker in workers {
        worker.await??;
    }
    let failures = load.failures.lock().clone();
    ensure!(failures.is_empty(), "{failures:?}");
    let long =
        host.browse(Method::GET, HOST, "/healthz")?.header("x-long", "x".repeat(10_000)).send().await?;
    ensure!(long.status().as_u16() == 431, "{}", long.status());
    world.host.process().ended().await?;
    world.host.stop_successor().await
}
