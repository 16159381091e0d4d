//! What happens at the end of a request, however it ends: it counts no longer as open, its figures go to
//! the metrics, its line to the log, and its connection is idle.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use http::{Method, StatusCode};

use crate::activity::Open;
use crate::body::rest;
use crate::ids::RequestId;
use crate::trace::Phases;
use crate::watch::Watch;
use crate::worker::Worker;

/// Which requests the access log has.
pub(crate) struct AccessLog {
    /// Of 2³²; none: no request.
    share: u64,
    /// Grows by `share` with each request; each overflow of 32 bits is a line. So the lines are spread evenly.
    sum: Cell<u64>,
}

impl AccessLog {
    /// `share`: from 0, none, to 1, all.
    pub(crate) fn new(share: f64) -> Self {
        let share = (share.clamp(0.0, 1.0) * 4_294_967_296.0).ceil();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 2^32")]
        let share = share as u64;
        Self { share, sum: Cell::new(0) }
    }

    /// Whether the next request is logged.
    pub(crate) fn takes(&self) -> bool {
        if self.share == 0 || !tracing::enabled!(target: "ingress::access", tracing::Level::INFO) {
            return false;
        }
        let sum = self.sum.get() + self.share;
        self.sum.set(sum & 0xffff_ffff);
        sum > 0xffff_ffff
    }
}

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
    pub(crate) phases: Phases,
}

impl Finish {
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    pub(crate) fn broke(&mut self) {
        self.broke = true;
    }
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
            tracing::info!(
                target: "ingress::access",
                deployment = self.open.as_ref().map(|open| tracing::field::display(open.deployment())),
                http.method = line.method.as_str(),
                http.host = line.host,
                http.path = line.path,
                http.status = self.status.as_u16(),
                http.sent_bytes = self.sent,
                http.duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
                http.wait_us = self.phases.wait,
                http.lease_us = self.phases.lease,
                http.connect_us = self.phases.connect,
                http.upstream_us = self.phases.upstream,
                http.broke_off = self.broke,
                client.address = %line.client,
                request.id = line.id.as_str(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_requests_is_logged_evenly() {
        let subscriber = tracing_subscriber::fmt().with_writer(std::io::sink).finish();
        tracing::subscriber::with_default(subscriber, || {
            for (share, expected) in [(0.0, 0), (1.0, 1000), (0.25, 250), (0.001, 1), (7.0, 1000)] {
                let log = AccessLog::new(share);
                assert_eq!((0..1000).filter(|_| log.takes()).count(), expected, "{share}");
            }
        });
    }
}
