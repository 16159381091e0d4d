//! What happens at the end of a request, however it ends: it counts no longer as open, its figures go to
//! the metrics, its line to the log, and its connection is idle.

use std::rc::Rc;
use std::time::Instant;

use http::{Method, StatusCode};

use crate::activity::Open;
use crate::body::rest;
use crate::ids::RequestId;
use crate::watch::Watch;
use crate::worker::Worker;

/// What the access log says, kept only while somebody reads it.
pub(crate) struct LogLine {
    pub(crate) method: Method,
    pub(crate) host: String,
    /// Without the query: that may hold secrets.
    pub(crate) path: String,
    pub(crate) client: std::net::SocketAddr,
    pub(crate) id: RequestId,
}

/// Dropped when the answer has ended.
pub(crate) struct Finish {
    pub(crate) worker: Rc<Worker>,
    pub(crate) watch: Rc<Watch>,
    /// None: the request led to no deployment, or goes on as a tunnel.
    pub(crate) open: Option<Open>,
    pub(crate) started: Instant,
    pub(crate) status: StatusCode,
    pub(crate) sent: u64,
    pub(crate) broke: bool,
    pub(crate) line: Option<Box<LogLine>>,
}

impl Finish {
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    pub(crate) fn broke(&mut self) {
        self.broke = true;
    }
}

/// Whether anybody reads the access log.
pub(crate) fn is_logged() -> bool {
    tracing::enabled!(target: "ingress::access", tracing::Level::DEBUG)
}

impl Drop for Finish {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        if let Some(open) = &self.open {
            open.count(self.status, took);
            open.touch(self.worker.clock.unix_ms());
        }
        rest(&self.watch);
        if let Some(line) = &self.line {
            tracing::debug!(
                target: "ingress::access",
                deployment = self.open.as_ref().map(|open| tracing::field::display(open.deployment())),
                http.method = line.method.as_str(),
                http.host = line.host,
                http.path = line.path,
                http.status = self.status.as_u16(),
                http.sent_bytes = self.sent,
                http.duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
                http.broke_off = self.broke,
                client.address = %line.client,
                request.id = line.id.as_str(),
            );
        }
    }
}
