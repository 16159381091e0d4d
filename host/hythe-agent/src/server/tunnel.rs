//! Connections that are carried to a local port of a workload: bytes, never read as requests.

use std::sync::Arc;

use agent_api::header;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::Server;
use super::routes::{Answer, check_incarnation, empty, workload};
use crate::problem::Refusal;
use crate::workload::connect;

/// Bytes that wait in each direction; when they do, the sender is not read from.
const BUFFER: usize = 64 * 1024;

/// Answers `CONNECT`: the local connection is there before the 200 is.
pub async fn open(server: &Arc<Server>, mut request: Request<Incoming>) -> Result<Answer, Refusal> {
    let authority = request.uri().authority().cloned();
    let port = authority
        .filter(|authority| authority.host() == "127.0.0.1")
        .and_then(|authority| authority.port_u16());
    let port = port.ok_or_else(|| Refusal::invalid("a tunnel leads to 127.0.0.1:<port>, nowhere else"))?;
    let headers = request.headers();
    let deployment = headers.get(header::DEPLOYMENT).and_then(|value| value.to_str().ok());
    let deployment = deployment.ok_or_else(|| {
        Refusal::invalid(format!("the header {} must name the deployment", header::DEPLOYMENT))
    })?;
    if !headers.contains_key(header::INCARNATION) {
        return Err(Refusal::invalid(format!("the header {} must be there", header::INCARNATION)));
    }
    let workload = workload(server, deployment)?;
    check_incarnation(&workload, headers)?;
    if !workload.owns_port(port).await {
        return Err(Refusal::not_found(format!("the local port {port} is not one of {deployment}'s")));
    }
    let local = connect(port).await.map_err(|error| {
        Refusal::unavailable(format!(
            "{deployment} doesn't accept connections on its local port {port}: {error}"
        ))
    })?;
    local.set_nodelay(true)?;
    // It may have ended, and another incarnation begun, since the first look.
    check_incarnation(&workload, request.headers())?;
    tokio::spawn(carry(hyper::upgrade::on(&mut request), local));
    Ok(empty(StatusCode::OK))
}

async fn carry(upgrade: OnUpgrade, mut local: TcpStream) {
    let Ok(upgraded) = upgrade.await else { return };
    let Ok(parts) = upgraded.downcast::<TokioIo<TlsStream<TcpStream>>>() else { return };
    let mut remote = parts.io.into_inner();
    // What the host sent without waiting for the 200.
    if local.write_all(&parts.read_buf).await.is_err() {
        return;
    }
    // An end of input in one direction is passed on as such; the other goes on.
    if let Err(error) = copy_bidirectional_with_sizes(&mut remote, &mut local, BUFFER, BUFFER).await {
        tracing::debug!(error = %error, "a tunnel broke");
    }
}
