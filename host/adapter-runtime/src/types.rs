//! What host and adapter say to each other, in plain Rust: the records of `wit/deployment/types.wit`,
//! whose comments say what they mean. Everything that came from an adapter has been checked here or in
//! `convert`.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use model::{Phase, Scheme};

/// What comes later, by name.
pub type Extensions = BTreeMap<String, serde_json::Value>;

/// How a deployment's present incarnation is, as its runtime sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    pub phase: Phase,
    /// One sentence for a person, at most 2,048 bytes.
    pub detail: Option<String>,
    /// When to look again, where the runtime knows better than the host's own schedule.
    pub poll_after: Option<Duration>,
    pub extensions: Extensions,
}

/// An HTTP header; the value may be any bytes but CR, LF and NUL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub name: String,
    pub value: Vec<u8>,
}

/// Where requests go, until `ttl` has passed or the deployment changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Fetcher {
    pub upstream: Upstream,
    pub scheme: Scheme,
    /// Replaces `Host`.
    pub host_header: Option<String>,
    pub set_headers: Vec<Header>,
    /// None: until the deployment changes.
    pub ttl: Option<Duration>,
    pub extensions: Extensions,
}

/// Where bytes go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Upstream {
    /// A local port of the machine that the deployment holds.
    Machine(u16),
    /// The daemon of that machine.
    Agent,
    Granted(Place),
    /// Another deployment of the same project, by its id as the adapter gave it.
    Deployment(String),
    Component(ComponentPlace),
}

/// A network place inside a grant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The grant's name. Whether the adapter has it is for the host to check.
    pub grant: String,
    /// None: the grant's own.
    pub address: Option<String>,
    /// None: the grant's own; never 0.
    pub port: Option<u16>,
}

/// A component that the host itself runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ComponentPlace {
    pub digest: String,
    pub environment: Vec<(String, String)>,
    pub storage: Option<String>,
    pub memory_mb: Option<u32>,
}

/// An HTTP request that an adapter asks the host to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// A token (RFC 9110, section 9.1).
    pub method: String,
    /// Begins with `/`, has the query with it and no space or control character.
    pub path: String,
    pub headers: Vec<Header>,
    pub body: Body,
    /// From the first byte sent to the last one received. Never more than what the call has left; in an
    /// [`Attachment`] none means that the stream may stay open.
    pub timeout: Option<Duration>,
}

/// What a request carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    None,
    Inline(Bytes),
    /// A stored archive by its lower-case hex SHA-256.
    Artifact(String),
}

/// What came back, whatever its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<Header>,
    pub body: Bytes,
}

/// How the host opens a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    HttpStream,
    HttpUpgrade,
    Websocket,
}

/// How output, input and the exit are told apart on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Executions: `agent_api::frame`. Logs: `agent_api::LogLine` as JSON, one a line.
    Hythe,
    Raw,
    Docker,
    Kubernetes,
    Lines,
}

/// A stream that the host should attach to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    pub upstream: Upstream,
    pub request: Request,
    pub transport: Transport,
    pub framing: Framing,
}

/// Health by the runtime's own means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    Healthy,
    /// Why, for a person.
    Unhealthy(String),
}

/// A command to run inside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Command {
    /// No shell.
    pub argv: Vec<String>,
    pub cwd: Option<String>,
    pub env: Vec<(String, String)>,
    /// Columns and rows of a terminal.
    pub tty: Option<(u16, u16)>,
    /// None: 120 s.
    pub timeout: Option<Duration>,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    /// By its name: `SIGKILL`.
    Signal(String),
    TimedOut,
    /// It ended while nobody watched.
    Unknown,
}

/// All that a finished command printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub exit: Exit,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// A command: where its output streams, or what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Execution {
    Attached(Attachment),
    Finished(Output),
}

/// Which lines to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    pub lines: u32,
    pub follow: bool,
    /// Unix time in milliseconds.
    pub since_ms: Option<u64>,
}

/// One line that a workload printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Unix time in milliseconds.
    pub at_ms: Option<u64>,
    pub origin: String,
    pub text: String,
}

/// Lines: where they stream, or themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogSource {
    Attached(Attachment),
    Finished(Vec<LogLine>),
}
