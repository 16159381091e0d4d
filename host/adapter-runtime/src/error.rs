//! What can go wrong: making the runtime, loading a component, calling it.

use std::time::Duration;

/// An error in the contract's own words, in either direction: an adapter's answer to a call, or the
/// host's answer to an adapter's request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeploymentError {
    #[error("the specification can't be run: {0}")]
    Invalid(String),
    #[error("the runtime has no such thing (any more)")]
    NotFound,
    #[error("not now: try again in {} ms", .0.as_millis())]
    Busy(Duration),
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// Names the grant.
    #[error("denied: {0}")]
    Denied(String),
    #[error("nothing left to claim: {0}")]
    Exhausted(String),
    #[error("not supported")]
    Unsupported,
    #[error("the runtime has seen a later operation than this one; nothing was done")]
    Superseded,
    #[error("{message} ({code})")]
    Other { code: String, message: String },
}

/// What a [`DeploymentHost`](crate::DeploymentHost) answers where it can't do what was asked.
pub type HostError = DeploymentError;

/// Why the runtime can't be made.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("the adapter runtime can't be set up: {0}")]
    Engine(String),
    #[error("the folder for compiled adapters {path} {problem}")]
    CacheDir { path: String, problem: String },
}

/// Why a component is not an adapter.
#[derive(Debug, thiserror::Error)]
#[error("adapter `{adapter}` can't be loaded: {cause}")]
pub struct LoadError {
    /// The name that it was to be loaded under.
    pub adapter: String,
    pub cause: LoadCause,
}

/// What is wrong with a component, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum LoadCause {
    #[error(
        "the file is not WebAssembly: it begins with {found}, not with `\\0asm`; give the .wasm file that the build wrote"
    )]
    NotWasm { found: String },
    #[error(
        "the file is a core module, not a component: build it for wasm32-wasip2, or wrap it with `wasm-tools component new`"
    )]
    CoreModule,
    #[error("the component has {bytes} bytes: at most {limit} are allowed")]
    TooLarge { bytes: usize, limit: usize },
    #[error("the file is truncated or damaged at byte {offset}: {problem}; build or copy it again")]
    Damaged { offset: usize, problem: String },
    #[error("it exports {exported}, this host serves {served}: build it against hythe:deployment@{served}")]
    WrongVersion { exported: String, served: String },
    #[error("it imports {imported}, this host serves {served}: build it against hythe:deployment@{served}")]
    WrongImportVersion { imported: String, served: String },
    #[error(
        "it does not export {missing} (it exports {found}): build it for the world hythe:deployment/runtime-adapter"
    )]
    MissingExport { missing: String, found: String },
    #[error("it imports {name}, which this host does not provide: {instead}")]
    UnknownImport { name: String, instead: &'static str },
    /// A function's or record's shape differs from the contract's.
    #[error("it does not fit hythe:deployment@{served}: {problem}")]
    Shape { served: String, problem: String },
    #[error("it can't be compiled: {0}")]
    Compile(String),
    #[error("{0}")]
    Describe(CallError),
    /// An instance for decisions about requests can't be made.
    #[error("it exports http-routing, but no instance for that can be made: {0}")]
    Routing(CallError),
    #[error("`describe` gave two different answers in a row: it must be the same each time")]
    Unsteady,
    #[error("its description's {field} {problem}")]
    Descriptor { field: &'static str, problem: String },
}

/// Why a call did not end with an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallError {
    /// The name that the adapter was loaded under.
    pub adapter: String,
    /// As in WIT: `get-fetcher`.
    pub function: &'static str,
    pub cause: CallCause,
}

/// What ended a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallCause {
    /// The adapter's own answer, in the contract's words. Nothing is wrong with the adapter.
    Adapter(DeploymentError),
    /// The guest fell: what happened, with the last that it printed.
    Trap(String),
    /// The whole call took too long.
    Timeout {
        limit: Duration,
    },
    /// The guest computed for too long.
    Computing {
        limit: Duration,
    },
    OutOfMemory {
        limit_bytes: usize,
    },
    HostCalls {
        limit: u32,
    },
    /// An answer that the contract does not allow.
    Answer(String),
    /// The component does not export the interface.
    Unsupported {
        interface: &'static str,
    },
    /// The host's own fault.
    Internal(String),
}

impl CallError {
    /// The adapter's own answer, where it gave one.
    #[must_use]
    pub fn answered(&self) -> Option<&DeploymentError> {
        match &self.cause {
            CallCause::Adapter(error) => Some(error),
            _ => None,
        }
    }

    /// Whether the adapter broke its bounds or the contract, rather than answering: an operator should
    /// hear of it.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        !matches!(self.cause, CallCause::Adapter(_) | CallCause::Unsupported { .. } | CallCause::Internal(_))
    }
}

impl std::error::Error for CallError {}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { adapter, function, cause } = self;
        let seconds = |limit: &Duration| format!("{} s", limit.as_secs_f64());
        write!(f, "adapter `{adapter}`: `{function}` ")?;
        match cause {
            CallCause::Adapter(error) => write!(f, "answered: {error}"),
            CallCause::Trap(what) => write!(f, "trapped: {what}"),
            CallCause::Timeout { limit } => write!(f, "took longer than {} and was ended", seconds(limit)),
            CallCause::Computing { limit } => {
                write!(f, "computed for more than {} and was ended", seconds(limit))
            }
            CallCause::OutOfMemory { limit_bytes } => {
                write!(f, "wanted more than {} MiB of memory and was ended", limit_bytes >> 20)
            }
            CallCause::HostCalls { limit } => {
                write!(f, "called the host more than {limit} times and was ended")
            }
            CallCause::Answer(what) => write!(f, "gave an answer that the contract does not allow: {what}"),
            CallCause::Unsupported { interface } => {
                write!(f, "needs the interface `{interface}`, which the adapter does not export")
            }
            CallCause::Internal(what) => write!(f, "could not be made: {what}"),
        }
    }
}

/// Why there is no decision about a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No such adapter is in the table (any more).
    #[error("no adapter `{adapter}` decides about requests")]
    Unknown { adapter: String },
    /// It has failed too often in a row, and is not asked now.
    #[error("adapter `{adapter}` is not asked about requests for now, since it failed too often in a row")]
    Off { adapter: String },
    /// Larger than [`RoutingLimits::head_bytes`](crate::RoutingLimits::head_bytes). The adapter was not asked.
    #[error("the request's head has {bytes} bytes: adapters are asked about {limit} at most")]
    Head { bytes: usize, limit: usize },
    /// It trapped or took too long, and again on a fresh instance.
    #[error(transparent)]
    Failed(CallError),
    /// Its answer is not one that the contract allows.
    #[error(transparent)]
    Answer(CallError),
}
