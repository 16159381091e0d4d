//! How much an adapter may take.

use std::path::PathBuf;
use std::time::Duration;

use crate::compile::CompilerCommand;

/// Bounds on one call, and on all of them together. The defaults are right for adapters that drive a
/// runtime over HTTP, in any language that compiles to a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// A whole call, the time in host calls included.
    pub call: Duration,
    /// What of it may go into the guest's own computing.
    pub computing: Duration,
    /// All linear memories of one call together, in bytes.
    pub memory_bytes: usize,
    /// Elements of one table.
    pub table_elements: usize,
    /// Core instances of one call; also bounds its tables.
    pub instances: u32,
    /// Calls to the host's own interface in one call.
    pub host_calls: u32,
    /// Handles that one call may hold at once.
    pub handles: usize,
    /// Bytes that may cross from the guest to the host at once: an answer, or the arguments of one call.
    pub crossing_bytes: usize,
    /// Bytes of a request's inline body.
    pub request_bytes: usize,
    /// Bytes of a response's body.
    pub response_bytes: usize,
    /// Log lines of one call, printed ones included; the rest is counted and dropped.
    pub log_lines: u32,
    /// Events of one call; the rest is counted and dropped.
    pub events: u32,
    /// Calls at once, of all adapters.
    pub calls: u32,
    /// Calls at once of one adapter, so that one can't keep the others waiting.
    pub calls_per_adapter: u32,
    /// Bytes of a component.
    pub component_bytes: usize,
    /// Time to compile one.
    pub compile: Duration,
    /// Memory to compile one, where a child process does it.
    pub compile_memory_bytes: u64,
    /// Decisions about requests.
    pub routing: RoutingLimits,
}

/// Bounds on one decision about a request (`http-routing`), and on the instances that make them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutingLimits {
    /// Processor time of one call, or of making an instance; as precise as an epoch, which has 1 ms.
    pub computing: Duration,
    /// All linear memories of one instance together, in bytes.
    pub memory_bytes: usize,
    /// Elements of one table.
    pub table_elements: usize,
    /// Core instances of one instance; also bounds its tables.
    pub instances: u32,
    /// Calls to WASI in one call.
    pub host_calls: u32,
    /// Handles that one instance may hold at once.
    pub handles: u32,
    /// Bytes of a request's head, as it goes into the guest.
    pub head_bytes: usize,
    /// Bytes that may cross from the guest to the host at once: an answer, or a printed text.
    pub crossing_bytes: usize,
    /// Bytes of an own answer's body.
    pub reply_bytes: usize,
    /// Requests in a row whose decision failed, after which the adapter is not asked for some time.
    pub failures: u32,
    /// That time: then one request is let try.
    pub off: Duration,
}

impl Default for RoutingLimits {
    fn default() -> Self {
        Self {
            computing: Duration::from_millis(2),
            memory_bytes: 16 << 20,
            table_elements: 20_000,
            instances: 32,
            host_calls: 256,
            handles: 64,
            head_bytes: 256 << 10,
            crossing_bytes: 256 << 10,
            reply_bytes: 64 << 10,
            failures: 3,
            off: Duration::from_secs(30),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(30),
            computing: Duration::from_secs(5),
            memory_bytes: 64 << 20,
            table_elements: 20_000,
            instances: 32,
            host_calls: 1_000,
            handles: 256,
            crossing_bytes: 4 << 20,
            request_bytes: 1 << 20,
            response_bytes: 4 << 20,
            log_lines: 256,
            events: 32,
            calls: 64,
            calls_per_adapter: 16,
            component_bytes: 64 << 20,
            compile: Duration::from_secs(60),
            compile_memory_bytes: 2 << 30,
            routing: RoutingLimits::default(),
        }
    }
}

/// How the runtime is set up.
#[derive(Debug, Clone, Default)]
pub struct RuntimeConfig {
    /// Folder for compiled components, made with mode 0700 where it is missing. None: nothing is kept.
    pub cache_dir: Option<PathBuf>,
    pub limits: Limits,
    /// A program that compiles in a process of its own, under limits: untrusted components may take very
    /// long. None: on a thread of this process.
    pub compiler: Option<CompilerCommand>,
}
