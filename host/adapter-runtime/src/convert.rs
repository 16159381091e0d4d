//! Between WIT and plain Rust. What came from a guest is checked on the way: a problem is one sentence
//! about what the contract does not allow.

use std::time::Duration;

use bytes::Bytes;
use model::{Phase, Scheme};
use wit_bindings::{control, health_check, host, logs, types as wit};

use crate::error::DeploymentError;
use crate::host::{Level, Requirements};
use crate::limits::Limits;
use crate::stdio::cut;
use crate::types::{
    Attachment, Body, Command, ComponentPlace, Execution, Exit, Extensions, Fetcher, Framing, Header, Health,
    LogLine, LogSource, Output, Place, Request, Response, Status, Tail, Transport, Upstream,
};

/// Bytes of a status's detail; the rest is cut off.
const MAX_DETAIL: usize = 2048;
/// Bytes of an error's sentence; the rest is cut off.
const MAX_MESSAGE: usize = 2048;
const MAX_EXTENSIONS: usize = 64;
const MAX_HEADERS: usize = 100;

type Checked<T> = Result<T, String>;

fn millis(ms: u32) -> Duration {
    Duration::from_millis(ms.into())
}

pub(crate) fn extensions(raw: wit::Extensions) -> Checked<Extensions> {
    if raw.len() > MAX_EXTENSIONS {
        return Err(format!("{} extensions: at most {MAX_EXTENSIONS} are allowed", raw.len()));
    }
    raw.into_iter()
        .map(|(name, json)| match serde_json::from_str(&json) {
            Ok(value) => Ok((name, value)),
            Err(error) => Err(format!("the extension {name:?} is not JSON: {error}")),
        })
        .collect()
}

pub(crate) fn phase(raw: wit::Phase) -> Phase {
    match raw {
        wit::Phase::Unknown => Phase::Unknown,
        wit::Phase::Created => Phase::Created,
        wit::Phase::Starting => Phase::Starting,
        wit::Phase::Running => Phase::Running,
        wit::Phase::Stopping => Phase::Stopping,
        wit::Phase::Stopped => Phase::Stopped,
        wit::Phase::Failed => Phase::Failed,
        wit::Phase::Destroyed => Phase::Destroyed,
    }
}

/// A status, of which `never` names the phases that the function never answers.
pub(crate) fn status(raw: wit::Status, never: &[Phase]) -> Checked<Status> {
    let phase = phase(raw.phase);
    if never.contains(&phase) {
        return Err(format!("the phase `{phase}`"));
    }
    Ok(Status {
        phase,
        detail: raw.detail.map(|detail| cut(&detail, MAX_DETAIL).to_owned()),
        poll_after: raw.poll_after_ms.map(millis),
        extensions: extensions(raw.extensions)?,
    })
}

pub(crate) fn error(raw: wit::Error) -> DeploymentError {
    let sentence = |text: String| cut(&text, MAX_MESSAGE).to_owned();
    match raw {
        wit::Error::Invalid(message) => DeploymentError::Invalid(sentence(message)),
        wit::Error::NotFound => DeploymentError::NotFound,
        wit::Error::Busy(ms) => DeploymentError::Busy(millis(ms)),
        wit::Error::Unavailable(message) => DeploymentError::Unavailable(sentence(message)),
        wit::Error::Denied(message) => DeploymentError::Denied(sentence(message)),
        wit::Error::Exhausted(message) => DeploymentError::Exhausted(sentence(message)),
        wit::Error::Unsupported => DeploymentError::Unsupported,
        wit::Error::Superseded => DeploymentError::Superseded,
        wit::Error::Other((code, message)) => {
            DeploymentError::Other { code: sentence(code), message: sentence(message) }
        }
    }
}

pub(crate) fn error_to_guest(error: DeploymentError) -> wit::Error {
    match error {
        DeploymentError::Invalid(message) => wit::Error::Invalid(message),
        DeploymentError::NotFound => wit::Error::NotFound,
        DeploymentError::Busy(after) => {
            wit::Error::Busy(u32::try_from(after.as_millis()).unwrap_or(u32::MAX))
        }
        DeploymentError::Unavailable(message) => wit::Error::Unavailable(message),
        DeploymentError::Denied(message) => wit::Error::Denied(message),
        DeploymentError::Exhausted(message) => wit::Error::Exhausted(message),
        DeploymentError::Unsupported => wit::Error::Unsupported,
        DeploymentError::Superseded => wit::Error::Superseded,
        DeploymentError::Other { code, message } => wit::Error::Other((code, message)),
    }
}

pub(crate) fn is_token(text: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(token)
}

fn header(raw: wit::Header) -> Checked<Header> {
    checked_header(raw.name, raw.value)
}

pub(crate) fn checked_header(name: String, value: Vec<u8>) -> Checked<Header> {
    if !is_token(&name) {
        return Err(format!("{:?} can't be a header's name", cut(&name, 100)));
    }
    if value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        return Err(format!("the header {name:?} has a line break or NUL in its value"));
    }
    Ok(Header { name, value })
}

fn headers(raw: Vec<wit::Header>) -> Checked<Vec<Header>> {
    if raw.len() > MAX_HEADERS {
        return Err(format!("{} headers: at most {MAX_HEADERS} are allowed", raw.len()));
    }
    raw.into_iter().map(header).collect()
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

pub(crate) fn request(raw: wit::Request, limits: &Limits) -> Checked<Request> {
    if !is_token(&raw.method) {
        return Err(format!("{:?} can't be a method", cut(&raw.method, 100)));
    }
    let visible = |byte: u8| byte > b' ' && byte < 0x7f && byte != b'#';
    if !raw.path.starts_with('/') || !raw.path.bytes().all(visible) || raw.path.len() > 8192 {
        return Err(format!(
            "{:?} can't be a path: it must begin with `/` and be percent-encoded",
            cut(&raw.path, 200)
        ));
    }
    let body = match raw.body {
        wit::Body::None => Body::None,
        wit::Body::Inline(bytes) if bytes.len() > limits.request_bytes => {
            return Err(format!(
                "a body of {} bytes: at most {} are allowed",
                bytes.len(),
                limits.request_bytes
            ));
        }
        wit::Body::Inline(bytes) => Body::Inline(Bytes::from(bytes)),
        wit::Body::Artifact(digest) if !is_digest(&digest) => {
            return Err(format!("{:?} can't be an artifact's digest", cut(&digest, 100)));
        }
        wit::Body::Artifact(digest) => Body::Artifact(digest),
    };
    Ok(Request {
        method: raw.method,
        path: raw.path,
        headers: headers(raw.headers)?,
        body,
        timeout: raw.timeout_ms.map(millis),
    })
}

pub(crate) fn response_to_guest(
    response: Response,
    limits: &Limits,
) -> Result<wit::Response, DeploymentError> {
    if response.body.len() > limits.response_bytes {
        let (length, limit) = (response.body.len(), limits.response_bytes);
        return Err(DeploymentError::Unavailable(format!(
            "the answer has {length} bytes: at most {limit} are read"
        )));
    }
    Ok(wit::Response {
        status: response.status,
        headers: response
            .headers
            .into_iter()
            .map(|Header { name, value }| wit::Header { name, value })
            .collect(),
        body: response.body.into(),
    })
}

fn port(port: u16) -> Checked<u16> {
    if port == 0 { Err("port 0".to_owned()) } else { Ok(port) }
}

fn upstream(raw: wit::Upstream) -> Checked<Upstream> {
    Ok(match raw {
        wit::Upstream::Machine(number) => Upstream::Machine(port(number)?),
        wit::Upstream::Agent => Upstream::Agent,
        wit::Upstream::Granted(place) => {
            if place.grant.is_empty() {
                return Err("a place without a grant".to_owned());
            }
            if place.address.as_deref().is_some_and(|address| {
                address.is_empty()
                    || address.len() > 255
                    || !address.bytes().all(|byte| byte.is_ascii_graphic())
            }) {
                return Err(format!("an address in the grant {:?} that can't be one", place.grant));
            }
            Upstream::Granted(Place {
                grant: place.grant,
                address: place.address,
                port: place.port.map(port).transpose()?,
            })
        }
        wit::Upstream::Deployment(id) => Upstream::Deployment(id),
        wit::Upstream::Component(component) => {
            if !is_digest(&component.digest) {
                return Err(format!("{:?} can't be a component's digest", cut(&component.digest, 100)));
            }
            Upstream::Component(ComponentPlace {
                digest: component.digest,
                environment: component.environment,
                storage: component.storage,
                memory_mb: component.memory_mb,
            })
        }
    })
}

pub(crate) fn scheme_to_guest(scheme: Scheme) -> wit::Scheme {
    match scheme {
        Scheme::Http => wit::Scheme::Http,
        Scheme::Https => wit::Scheme::Https,
        Scheme::H2c => wit::Scheme::H2c,
    }
}

pub(crate) fn fetcher(raw: wit::Fetcher) -> Checked<Fetcher> {
    if let Some(host) = &raw.host_header {
        header(wit::Header { name: "host".to_owned(), value: host.clone().into_bytes() })?;
        if host.is_empty() {
            return Err("an empty host-header".to_owned());
        }
    }
    Ok(Fetcher {
        upstream: upstream(raw.upstream)?,
        scheme: match raw.scheme {
            wit::Scheme::Http => Scheme::Http,
            wit::Scheme::Https => Scheme::Https,
            wit::Scheme::H2c => Scheme::H2c,
        },
        host_header: raw.host_header,
        set_headers: headers(raw.set_headers)?,
        ttl: raw.ttl_ms.map(millis),
        extensions: extensions(raw.extensions)?,
    })
}

fn attachment(raw: wit::Attachment, limits: &Limits) -> Checked<Attachment> {
    Ok(Attachment {
        upstream: upstream(raw.upstream)?,
        request: request(raw.request, limits)?,
        transport: match raw.transport {
            wit::Transport::HttpStream => Transport::HttpStream,
            wit::Transport::HttpUpgrade => Transport::HttpUpgrade,
            wit::Transport::Websocket => Transport::Websocket,
        },
        framing: match raw.framing {
            wit::Framing::Hythe => Framing::Hythe,
            wit::Framing::Raw => Framing::Raw,
            wit::Framing::Docker => Framing::Docker,
            wit::Framing::Kubernetes => Framing::Kubernetes,
            wit::Framing::Lines => Framing::Lines,
        },
    })
}

pub(crate) fn health(raw: health_check::Health) -> Health {
    match raw {
        health_check::Health::Healthy => Health::Healthy,
        health_check::Health::Unhealthy(why) => Health::Unhealthy(cut(&why, MAX_DETAIL).to_owned()),
    }
}

pub(crate) fn command_to_guest(command: Command) -> control::Command {
    control::Command {
        argv: command.argv,
        cwd: command.cwd,
        env: command.env,
        tty: command.tty,
        timeout_ms: command.timeout.map(|timeout| u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX)),
    }
}

pub(crate) fn execution(raw: control::Execution, limits: &Limits) -> Checked<Execution> {
    Ok(match raw {
        control::Execution::Attached(raw) => Execution::Attached(attachment(raw, limits)?),
        control::Execution::Finished(output) => Execution::Finished(Output {
            exit: match output.exit {
                control::Exit::Code(code) => Exit::Code(code),
                control::Exit::Signal(name) => Exit::Signal(name),
                control::Exit::TimedOut => Exit::TimedOut,
                control::Exit::Unknown => Exit::Unknown,
            },
            stdout: output.stdout,
            stderr: output.stderr,
        }),
    })
}

pub(crate) fn tail_to_guest(tail: Tail) -> logs::Tail {
    logs::Tail { lines: tail.lines, follow: tail.follow, since_ms: tail.since_ms }
}

pub(crate) fn log_source(raw: logs::Source, limits: &Limits) -> Checked<LogSource> {
    Ok(match raw {
        logs::Source::Attached(raw) => LogSource::Attached(attachment(raw, limits)?),
        logs::Source::Finished(lines) => LogSource::Finished(
            lines
                .into_iter()
                .map(|line| LogLine { at_ms: line.at_ms, origin: line.origin, text: line.text })
                .collect(),
        ),
    })
}

pub(crate) fn level(raw: host::Level) -> Level {
    match raw {
        host::Level::Trace => Level::Trace,
        host::Level::Debug => Level::Debug,
        host::Level::Info => Level::Info,
        host::Level::Warn => Level::Warn,
        host::Level::Error => Level::Error,
    }
}

pub(crate) fn requirements(raw: host::Requirements) -> Requirements {
    Requirements {
        machine_type: raw.type_,
        min_cpu_count: raw.min_cpu_count,
        min_memory_gb: raw.min_memory_gb,
        labels: raw.labels,
    }
}
