//! The lifecycle over a daemon: one bounded step a call, each of which may be repeated.

use agent_api::{
    ExecRequest, LocalPort, LogQuery, StopRequest, WorkloadPhase, WorkloadSpec, WorkloadStatus, path,
};

use crate::bindings::exports::hythe::deployment::control::{Command, Execution};
use crate::bindings::exports::hythe::deployment::health_check::Health;
use crate::bindings::exports::hythe::deployment::logs::{Source, Tail};
use crate::daemon::{json_request, read, refusal, request};
use crate::types::{
    Attachment, Body, Error, Fetcher, Framing, Phase, Request, Response, Scheme, Status, Transport, Upstream,
};

/// When to look again at what passes by itself.
const POLL_MS: u32 = 150;
/// How long an upload may take: a call has 30 s.
const UPLOAD_MS: u32 = 25_000;
/// When to ask again where a deployment that does not run takes requests.
const NOT_RUNNING_MS: u32 = 500;

/// The daemon, however it is reached.
pub(crate) trait Daemon {
    fn send(&self, request: &Request) -> Result<Response, Error>;
    fn port(&self, port: u16) -> Upstream;
    fn daemon(&self) -> Upstream;
}

/// What the functions need of the deployment.
pub(crate) struct View {
    pub(crate) id: String,
    pub(crate) incarnation: u64,
    pub(crate) services: Vec<(String, u16, Scheme)>,
    /// A start was begun, at some time.
    pub(crate) begun: bool,
}

fn status(phase: Phase, detail: Option<String>) -> Status {
    let passing = matches!(phase, Phase::Starting | Phase::Stopping);
    Status { phase, detail, poll_after_ms: passing.then_some(POLL_MS), extensions: Vec::new() }
}

pub(crate) fn stopped(detail: &str) -> Status {
    status(Phase::Stopped, Some(detail.to_owned()))
}

pub(crate) fn destroyed() -> Status {
    status(Phase::Destroyed, None)
}

/// The daemon is known, and says that it has no such workload; or there is no daemon that could.
pub(crate) fn absent(view: &View) -> Status {
    if view.begun {
        stopped("It was started, but its machine knows nothing of it (any more).")
    } else {
        status(Phase::Created, None)
    }
}

/// The daemon's words in the contract's. Extensions: `attempts`, supervised restarts of the incarnation.
fn translate(workload: WorkloadStatus) -> Status {
    let phase = match workload.phase {
        WorkloadPhase::Starting => Phase::Starting,
        WorkloadPhase::Running => Phase::Running,
        WorkloadPhase::Stopping => Phase::Stopping,
        WorkloadPhase::Stopped => Phase::Stopped,
        WorkloadPhase::Failed => Phase::Failed,
        WorkloadPhase::Destroyed => Phase::Destroyed,
    };
    let mut status = status(phase, workload.detail);
    if workload.attempts > 0 {
        status.extensions.push(("attempts".to_owned(), workload.attempts.to_string()));
    }
    status
}

fn is_live(phase: WorkloadPhase) -> bool {
    matches!(phase, WorkloadPhase::Starting | WorkloadPhase::Running | WorkloadPhase::Stopping)
}

/// How the workload is; none where the daemon has none.
fn workload(daemon: &dyn Daemon, view: &View) -> Result<Option<WorkloadStatus>, Error> {
    let response = daemon.send(&request("GET", path::workload(&view.id)))?;
    if response.status == 404 {
        return Ok(None);
    }
    let workload: WorkloadStatus = read(&response)?;
    if workload.incarnation > view.incarnation {
        return Err(Error::Superseded);
    }
    Ok(Some(workload))
}

pub(crate) fn start(daemon: &dyn Daemon, view: &View, spec: &WorkloadSpec) -> Result<Status, Error> {
    let put = json_request("PUT", path::workload(&view.id), spec)?;
    let mut response = daemon.send(&put)?;
    if response.status == 424 {
        let Some(digest) = &spec.source else {
            return Err(Error::Invalid("The daemon wants a source, and the deployment has none.".to_owned()));
        };
        upload(daemon, digest)?;
        response = daemon.send(&put)?;
    }
    let workload: WorkloadStatus = match read(&response) {
        // Not an answer about the deployment: the path itself is not there.
        Err(Error::NotFound) => {
            Err(Error::Unavailable("What answered is not a hythe-agent of this version.".to_owned()))
        }
        other => other,
    }?;
    if workload.incarnation > view.incarnation || workload.phase == WorkloadPhase::Destroyed {
        return Err(Error::Superseded);
    }
    if workload.incarnation < view.incarnation {
        let detail = format!("Waiting for incarnation {} to end.", workload.incarnation);
        return Ok(status(Phase::Starting, Some(detail)));
    }
    Ok(translate(workload))
}

/// Brings the source to the daemon, unless it is there.
fn upload(daemon: &dyn Daemon, digest: &str) -> Result<(), Error> {
    let path = path::source(digest);
    if daemon.send(&request("HEAD", path.clone()))?.status == 200 {
        return Ok(());
    }
    let body = Body::Artifact(digest.to_owned());
    let response = daemon.send(&Request { body, timeout_ms: Some(UPLOAD_MS), ..request("PUT", path) })?;
    if (200..300).contains(&response.status) { Ok(()) } else { Err(refusal(&response)) }
}

pub(crate) fn stop(daemon: &dyn Daemon, view: &View, grace_ms: u32) -> Result<Status, Error> {
    let stop = StopRequest { grace_ms: grace_ms.into() };
    let response = daemon.send(&json_request("POST", path::stop(&view.id), &stop)?)?;
    if response.status == 404 {
        return Ok(stopped("The daemon has no such workload."));
    }
    let mut status = translate(read(&response)?);
    match status.phase {
        // The request was taken: it is on its way down.
        Phase::Starting | Phase::Running => {
            status.phase = Phase::Stopping;
            status.poll_after_ms = Some(POLL_MS);
        }
        Phase::Destroyed => status.phase = Phase::Stopped,
        _ => {}
    }
    Ok(status)
}

pub(crate) fn restart(
    daemon: &dyn Daemon,
    view: &View,
    spec: &WorkloadSpec,
    grace_ms: u32,
) -> Result<Status, Error> {
    let earlier = workload(daemon, view)?;
    match earlier {
        // Also where this call, made before, has asked it to end: its grace is not to be cut short or drawn out.
        Some(earlier) if earlier.phase == WorkloadPhase::Stopping => {
            Ok(status(Phase::Starting, Some("Waiting for what ran before to end.".to_owned())))
        }
        Some(earlier) if earlier.incarnation < view.incarnation && is_live(earlier.phase) => {
            stop(daemon, view, grace_ms)?;
            Ok(status(Phase::Starting, Some(format!("Stopping incarnation {}.", earlier.incarnation))))
        }
        _ => start(daemon, view, spec),
    }
}

/// What is left to wait for; none when the daemon has nothing of the deployment any more.
pub(crate) fn destroy(daemon: &dyn Daemon, view: &View) -> Result<Option<Status>, Error> {
    let response = daemon.send(&request("DELETE", path::workload(&view.id)))?;
    if response.status == 404 {
        return Ok(None);
    }
    let workload: WorkloadStatus = read(&response)?;
    let gone = workload.phase == WorkloadPhase::Destroyed;
    Ok((!gone).then(|| status(Phase::Stopping, workload.detail)))
}

pub(crate) fn inspect(daemon: &dyn Daemon, view: &View) -> Result<Status, Error> {
    let Some(workload) = workload(daemon, view)? else { return Ok(absent(view)) };
    if workload.incarnation == view.incarnation {
        return Ok(translate(workload));
    }
    let earlier = workload.incarnation;
    Ok(if is_live(workload.phase) {
        // Not this incarnation's state, whatever it is.
        status(Phase::Unknown, Some(format!("Incarnation {earlier} has not ended yet.")))
    } else {
        stopped(&format!("Incarnation {earlier} was the last that ran; this one has not been started."))
    })
}

/// A service's name or a decimal port; nothing else reaches a path.
fn is_segment(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

pub(crate) fn get_fetcher(daemon: &dyn Daemon, view: &View, service: &str) -> Result<Fetcher, Error> {
    if !is_segment(service) {
        return Err(Error::NotFound);
    }
    let workload = workload(daemon, view)?.ok_or(Error::NotFound)?;
    if workload.phase == WorkloadPhase::Starting {
        return Err(Error::Busy(POLL_MS));
    }
    if workload.phase != WorkloadPhase::Running || workload.incarnation < view.incarnation {
        return Err(Error::Busy(NOT_RUNNING_MS));
    }
    let is_meant = |name: &str, port: u16| name == service || port.to_string() == service;
    let local_port = match workload.services.iter().find(|known| is_meant(&known.name, known.port)) {
        Some(known) => known.local_port,
        // A port that no service declares: whether the workload listens there is the daemon's to know.
        None => read::<LocalPort>(&daemon.send(&request("GET", path::port(&view.id, service)))?)?.local_port,
    };
    let declared = view.services.iter().find(|(name, port, _)| is_meant(name, *port));
    Ok(Fetcher {
        upstream: daemon.port(local_port),
        scheme: declared.map_or(Scheme::Http, |(_, _, scheme)| *scheme),
        host_header: None,
        set_headers: Vec::new(),
        ttl_ms: None,
        extensions: Vec::new(),
    })
}

pub(crate) fn check_health(daemon: &dyn Daemon, view: &View) -> Result<Health, Error> {
    let workload = workload(daemon, view)?.ok_or(Error::NotFound)?;
    let why = |word: &str| workload.detail.clone().unwrap_or_else(|| word.to_owned());
    Ok(match workload.phase {
        WorkloadPhase::Running => Health::Healthy,
        WorkloadPhase::Starting => return Err(Error::Busy(POLL_MS)),
        WorkloadPhase::Stopping => Health::Unhealthy(why("It is being stopped.")),
        WorkloadPhase::Stopped => Health::Unhealthy(why("It is stopped.")),
        WorkloadPhase::Failed => Health::Unhealthy(why("It has failed.")),
        WorkloadPhase::Destroyed => return Err(Error::NotFound),
    })
}

fn attachment(daemon: &dyn Daemon, request: Request) -> Attachment {
    Attachment {
        upstream: daemon.daemon(),
        request,
        transport: Transport::HttpStream,
        framing: Framing::Hythe,
    }
}

pub(crate) fn exec(
    daemon: &dyn Daemon,
    view: &View,
    execution: &str,
    command: Command,
) -> Result<Execution, Error> {
    if command.argv.is_empty() {
        return Err(Error::Invalid("The command is empty: give a program to run.".to_owned()));
    }
    if command.tty.is_some() {
        return Err(Error::Unsupported);
    }
    let exec = ExecRequest {
        argv: command.argv,
        cwd: command.cwd,
        env: command.env.into_iter().collect(),
        timeout_ms: command.timeout_ms.map(u64::from),
    };
    let request = json_request("POST", path::execution(&view.id, execution), &exec)?;
    Ok(Execution::Attached(attachment(daemon, request)))
}

pub(crate) fn attach(daemon: &dyn Daemon, view: &View, execution: &str, cursor: u64) -> Execution {
    let path = format!("{}?cursor={cursor}", path::execution(&view.id, execution));
    Execution::Attached(attachment(daemon, request("GET", path)))
}

pub(crate) fn read_logs(daemon: &dyn Daemon, view: &View, tail: &Tail) -> Source {
    let query = LogQuery { lines: tail.lines, follow: tail.follow, since_ms: tail.since_ms };
    Source::Attached(attachment(daemon, request("GET", path::logs(&view.id, &query))))
}
