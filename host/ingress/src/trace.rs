//! Where a request's time goes, phase by phase: as spans, in the access log, and (where the client asks for
//! it) as `Server-Timing`. Kept only for requests that somebody looks at.

use std::cell::RefCell;
use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue};

/// A client that sends this field gets `Server-Timing` (W3C Server Timing) with the answer. It goes no further.
pub(crate) const X_HYTHE_TIMING: HeaderName = HeaderName::from_static("x-hythe-timing");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// What a request is at, before its answer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// For the deployment to run.
    Wait,
    /// For the place of its service.
    Lease,
    /// For a connection.
    Connect,
    /// For the head of the app's answer.
    Upstream,
}

const NAMES: [&str; 4] = ["wait", "lease", "connect", "upstream"];

/// Of one request.
pub(crate) struct Trace(RefCell<State>);

struct State {
    span: tracing::Span,
    step: Option<(Step, Instant, tracing::Span)>,
    took_us: [u64; NAMES.len()],
    tells_client: bool,
}

/// Microseconds of each phase.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Phases {
    pub(crate) wait: u64,
    pub(crate) lease: u64,
    pub(crate) connect: u64,
    pub(crate) upstream: u64,
}

impl Trace {
    /// `id`: the trace id, which is the request's.
    pub(crate) fn new(id: &str, tells_client: bool) -> Box<Self> {
        let span = tracing::debug_span!(target: "ingress::request", "request", request.id = id);
        Box::new(Self(RefCell::new(State { span, step: None, took_us: [0; NAMES.len()], tells_client })))
    }

    /// The next phase begins.
    pub(crate) fn enter(&self, step: Step) {
        let mut state = self.0.borrow_mut();
        state.end_step();
        let name = NAMES[step as usize];
        let span =
            tracing::debug_span!(target: "ingress::request", parent: &state.span, "phase", phase = name);
        state.step = Some((step, Instant::now(), span));
    }

    /// The answer has begun (or will not come).
    pub(crate) fn end(&self) {
        self.0.borrow_mut().end_step();
    }

    pub(crate) fn phases(&self) -> Phases {
        let [wait, lease, connect, upstream] = self.0.borrow().took_us;
        Phases { wait, lease, connect, upstream }
    }

    /// Says it in the answer, beside what the app says of itself.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        let state = self.0.borrow();
        if !state.tells_client {
            return;
        }
        let parts: Vec<String> = NAMES
            .iter()
            .zip(state.took_us)
            .map(|(name, us)| format!("hythe-{name};dur={}.{:03}", us / 1000, us % 1000))
            .collect();
        if let Ok(value) = HeaderValue::from_str(&parts.join(", ")) {
            headers.append(SERVER_TIMING, value);
        }
    }
}

impl State {
    fn end_step(&mut self) {
        if let Some((step, since, span)) = self.step.take() {
            drop(span);
            self.took_us[step as usize] += u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        }
    }
}
