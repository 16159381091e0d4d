//! What a routing instance's store holds: its bounds, and what it printed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use wasmtime::{ResourceLimiter, bail};

use super::ticker::{TICK, Ticker};
use crate::error::CallCause;
use crate::limits::RoutingLimits;
use crate::stdio::cut;

/// Bytes of what one call prints; the rest is counted and dropped.
const MAX_PRINTED: usize = 8 * 1024;
/// Of those, how many explain a trap.
const LAST_WORDS: usize = 1_000;

pub(crate) struct RoutingState {
    limits: Arc<RoutingLimits>,
    ticker: Arc<Ticker>,
    /// Where the guest's monotonic clock begins.
    began: Instant,
    memory_bytes: usize,
    handles: u32,
    host_calls: u32,
    /// The thread's processor time when the present call met its first epoch's end.
    computing_since: Option<Duration>,
    printed: Vec<u8>,
    dropped: usize,
    /// The first bound that was broken.
    tripped: Option<CallCause>,
}

/// Of this thread alone: what others make it wait for is not the guest's.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

impl RoutingState {
    pub(crate) fn new(limits: Arc<RoutingLimits>, ticker: Arc<Ticker>) -> Self {
        Self {
            limits,
            ticker,
            began: Instant::now(),
            memory_bytes: 0,
            handles: 0,
            host_calls: 0,
            computing_since: None,
            printed: Vec::new(),
            dropped: 0,
            tripped: None,
        }
    }

    /// A call begins.
    pub(crate) fn begin(&mut self) {
        self.host_calls = 0;
        self.computing_since = None;
        self.printed.clear();
        self.dropped = 0;
    }

    /// An epoch has ended in a call.
    pub(crate) fn tick(&mut self) -> wasmtime::Result<()> {
        self.ticker.called();
        let now = processor_time();
        // The call began in the middle of the first one. A quarter: what an epoch may be too short.
        let since = *self.computing_since.get_or_insert(now);
        let allowed = self.limits.computing.saturating_sub(TICK + TICK / 4);
        if now > since && now - since >= allowed {
            return self.trip(CallCause::Computing { limit: self.limits.computing });
        }
        Ok(())
    }

    /// Ends the call for a bound that was broken.
    pub(crate) fn trip<T>(&mut self, cause: CallCause) -> wasmtime::Result<T> {
        let text = format!("{cause:?}");
        self.tripped.get_or_insert(cause);
        bail!("{text}")
    }

    pub(crate) fn tripped(&mut self) -> Option<CallCause> {
        self.tripped.take()
    }

    /// A call of the guest to the host.
    pub(crate) fn enter(&mut self) -> wasmtime::Result<()> {
        self.host_calls += 1;
        if self.host_calls > self.limits.host_calls {
            return self.trip(CallCause::HostCalls { limit: self.limits.host_calls });
        }
        Ok(())
    }

    /// The guest gets a handle.
    pub(crate) fn take_handle(&mut self) -> wasmtime::Result<()> {
        self.handles += 1;
        if self.handles > self.limits.handles {
            let what = format!("it held more than {} handles", self.limits.handles);
            return self.trip(CallCause::Trap(what));
        }
        Ok(())
    }

    /// The guest has dropped one.
    pub(crate) fn give_handle(&mut self) {
        self.handles = self.handles.saturating_sub(1);
    }

    pub(crate) fn print(&mut self, bytes: &[u8]) {
        let kept = bytes.len().min(MAX_PRINTED - self.printed.len());
        self.printed.extend_from_slice(&bytes[..kept]);
        self.dropped += bytes.len() - kept;
    }

    /// Writes what the call printed into the host's log.
    pub(crate) fn log(&mut self, adapter: &str) {
        if self.printed.is_empty() {
            return;
        }
        for line in String::from_utf8_lossy(&self.printed).lines() {
            tracing::debug!(adapter, function = "route-http", "{line}");
        }
        if self.dropped > 0 {
            let dropped = self.dropped;
            tracing::debug!(adapter, function = "route-http", "{dropped} more bytes were dropped");
        }
        self.printed.clear();
    }

    /// What the call printed last, on one line, for a message about a trap.
    pub(crate) fn last_words(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.printed);
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with("note: run with `RUST_BACKTRACE"))
            .collect();
        (!lines.is_empty())
            .then(|| cut(&lines[lines.len().saturating_sub(4)..].join(" "), LAST_WORDS).to_owned())
    }

    pub(crate) fn since_beginning(&self) -> Duration {
        self.began.elapsed()
    }
}

impl ResourceLimiter for RoutingState {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        if total > self.limits.memory_bytes {
            return self.trip(CallCause::OutOfMemory { limit_bytes: self.limits.memory_bytes });
        }
        self.memory_bytes = total;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= self.limits.table_elements)
    }

    fn instances(&self) -> usize {
        self.limits.instances as usize
    }

    fn tables(&self) -> usize {
        self.limits.instances as usize
    }
}
