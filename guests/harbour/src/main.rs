//! Harbour: a live board of a small harbour, and the sample project of Hythe.
//!
//! Boats arrive, moor at berths and leave; people talk on the quay. Pages are rendered here and kept
//! current by server-sent events; talk and presence go over a WebSocket; all of it is also a JSON
//! API. What is kept is one JSON file in the working directory.
//!
//! Knows nothing of Hythe: it listens on `127.0.0.1:$PORT`, like any web app, and ends well on SIGTERM.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line program")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

mod api;
mod app;
mod assets;
mod board;
mod chat;
mod error;
mod events;
mod keeper;
mod pages;
mod streams;
mod tide;

/// How long open requests may last after SIGTERM. Event streams and WebSockets are ended at once.
const GRACE: Duration = Duration::from_secs(8);

fn main() -> Result<()> {
    // Two threads do for a sample, and keep it small beside what it is a sample of.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve())
}

async fn serve() -> Result<()> {
    let port = match std::env::var("PORT") {
        Ok(port) => {
            port.parse().with_context(|| format!("PORT is {port:?}: set it to a port, 0 to 65535"))?
        }
        Err(_) => 3000,
    };
    let folder =
        |name: &str, or: &str| std::env::var_os(name).map_or_else(|| PathBuf::from(or), PathBuf::from);
    let assets = assets::Assets::load(&folder("HARBOUR_PUBLIC", "public"))?;
    let (keeper, board) = keeper::Keeper::open(folder("HARBOUR_DATA", "harbour.json"))?;

    let listener = TcpListener::bind(("127.0.0.1", port))
        .await
        .with_context(|| format!("can't listen on 127.0.0.1:{port}: set PORT to a free one"))?;
    let (stop, stopping) = watch::channel(false);
    let app = Arc::new(app::App::new(board, keeper.handle(), assets, stopping));
    println!("harbour: open on http://{}", listener.local_addr()?);

    let tide = tokio::spawn(tide::announce(app.clone()));
    let server = axum::serve(listener, app::router(app.clone())).with_graceful_shutdown(app.stopped());
    let server = tokio::spawn(async move { server.await });

    wait_for_signal().await?;
    println!("harbour: closing");
    // Ends event streams and WebSockets, which would last for ever, and takes no new connections.
    let _ = stop.send(true);
    match tokio::time::timeout(GRACE, server).await {
        Ok(result) => result??,
        Err(_) => eprintln!("harbour: requests were still open after {} s and were cut", GRACE.as_secs()),
    }
    tide.abort();
    keeper.close(app.board.snapshot()).await?;
    println!("harbour: closed");
    Ok(())
}

async fn wait_for_signal() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
