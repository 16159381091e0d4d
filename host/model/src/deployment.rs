//! Deployments: what is wanted, what was seen, and the fence between late and present.

use serde::{Deserialize, Serialize};

use crate::id::DeploymentId;
use crate::name::ServiceName;

/// A text that is none of an enumeration's values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not a {what}: expected one of {expected}")]
pub struct UnknownValue {
    pub(crate) value: String,
    pub(crate) what: &'static str,
    pub(crate) expected: String,
}

/// An enum whose values have one spelling in SQL, JSON, the API and the CLI.
macro_rules! text_enum {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The one spelling.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = UnknownValue;

            fn from_str(value: &str) -> Result<Self, UnknownValue> {
                match value {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(UnknownValue {
                        value: value.to_owned(),
                        what: $what,
                        expected: [$($text),+].join(", "),
                    }),
                }
            }
        }
    };
}
pub(crate) use text_enum;

text_enum! {
    /// What the user wants of a deployment.
    Wanted, "wanted state" {
        Running = "running",
        Stopped = "stopped",
        Destroyed = "destroyed",
    }
}

text_enum! {
    /// What an adapter says of a deployment. `unknown` is an answer, never stored: the host keeps
    /// what it knew and asks again.
    Phase, "phase" {
        Unknown = "unknown",
        Created = "created",
        Starting = "starting",
        Running = "running",
        Stopping = "stopping",
        Stopped = "stopped",
        Failed = "failed",
        Destroyed = "destroyed",
    }
}

text_enum! {
    /// What was last seen of a deployment, and is stored: a [`Phase`] without `unknown`.
    Seen, "state" {
        Created = "created",
        Starting = "starting",
        Running = "running",
        Stopping = "stopping",
        Stopped = "stopped",
        Failed = "failed",
        Destroyed = "destroyed",
    }
}

text_enum! {
    /// What an adapter is called for, to bring a deployment to what is wanted.
    OperationKind, "operation" {
        Start = "start",
        Stop = "stop",
        Restart = "restart",
        Destroy = "destroy",
    }
}

text_enum! {
    /// Whether a running deployment answers as it should.
    Health, "health" {
        Unknown = "unknown",
        Healthy = "healthy",
        Unhealthy = "unhealthy",
    }
}

text_enum! {
    /// What a request to a stopped deployment does.
    WakePolicy, "wake policy" {
        /// It starts it; a browser gets a page that becomes the app, all others wait.
        #[serde(alias = "on-request")]
        Dynamic = "dynamic",
        /// It starts it, and waits.
        Blocking = "blocking",
        /// It is refused.
        #[serde(alias = "never")]
        None = "none",
    }
}

impl WakePolicy {
    /// Reads what users write: the present words, and those of before (`on-request` is `dynamic`, `never` is
    /// `none`).
    ///
    /// # Errors
    /// Where it is none of them.
    pub fn from_user(text: &str) -> Result<Self, UnknownValue> {
        match text {
            "on-request" => Ok(Self::Dynamic),
            "never" => Ok(Self::None),
            _ => text.parse(),
        }
    }

    /// Whether a request starts it.
    #[must_use]
    pub fn wakes(self) -> bool {
        self != Self::None
    }
}

text_enum! {
    /// Why a deployment is wanted stopped, where nobody said so.
    StopReason, "reason" {
        /// Nothing went on at it for its idle time-out.
        Idle = "idle",
    }
}

/// The shortest idle time-out, in seconds: hosts tell each other of activity every two seconds.
pub const MIN_IDLE_SECONDS: u32 = 5;
/// The longest: a year.
pub const MAX_IDLE_SECONDS: u32 = 31_536_000;

text_enum! {
    /// What a service speaks on its port.
    Scheme, "scheme" {
        Http = "http",
        Https = "https",
        H2c = "h2c",
    }
}

impl Phase {
    /// What to store; none for `unknown`.
    #[must_use]
    pub fn seen(self) -> Option<Seen> {
        Some(match self {
            Self::Unknown => return None,
            Self::Created => Seen::Created,
            Self::Starting => Seen::Starting,
            Self::Running => Seen::Running,
            Self::Stopping => Seen::Stopping,
            Self::Stopped => Seen::Stopped,
            Self::Failed => Seen::Failed,
            Self::Destroyed => Seen::Destroyed,
        })
    }
}

impl Seen {
    /// Whether the state passes by itself: the host asks again soon.
    #[must_use]
    pub fn is_passing(self) -> bool {
        matches!(self, Self::Starting | Self::Stopping)
    }

    /// Whether something may be running for it.
    #[must_use]
    pub fn may_hold_resources(self) -> bool {
        !matches!(self, Self::Created | Self::Destroyed)
    }

    /// Whether one answer of the adapter may take the stored state from here to there. `destroyed` is
    /// the end; nothing goes back to `created`.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        self == next || (self != Self::Destroyed && next != Self::Created)
    }
}

/// A named port of a deployment. The first one of a deployment is its default service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Service {
    pub name: ServiceName,
    /// The port that the workload is told to listen on, 1 to 65535.
    pub port: u16,
    #[serde(default = "http")]
    pub scheme: Scheme,
}

fn http() -> Scheme {
    Scheme::Http
}

/// Names one operation on one deployment among all that ever were: later ones compare greater.
///
/// Every call to a machine's daemon bears it; the daemon durably refuses lower ones. Order is by
/// `operation` alone, which counts up by one for each operation that the host begins; generation
/// and incarnation say what it was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fence {
    pub deployment: DeploymentId,
    /// Counts changes of what is wanted.
    pub generation: u64,
    /// Counts starts.
    pub incarnation: u64,
    /// Counts operations.
    pub operation: u64,
}

impl Fence {
    /// The runtime's idempotency key: the same for every try of this operation.
    #[must_use]
    pub fn idempotency_key(&self) -> String {
        format!("{}-{}-{}", self.deployment, self.incarnation, self.operation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_everywhere() {
        for seen in Seen::ALL {
            assert_eq!(seen.as_str().parse::<Seen>().unwrap(), *seen);
            assert_eq!(serde_json::to_value(seen).unwrap(), seen.as_str());
        }
        assert_eq!(
            "paused".parse::<Wanted>().unwrap_err().to_string(),
            "\"paused\" is not a wanted state: expected one of running, stopped, destroyed"
        );
    }

    #[test]
    fn words_of_before_are_read_and_never_written() {
        for (text, policy) in [("on-request", WakePolicy::Dynamic), ("never", WakePolicy::None)] {
            assert_eq!(WakePolicy::from_user(text).unwrap(), policy);
            assert_eq!(serde_json::from_value::<WakePolicy>(text.into()).unwrap(), policy);
            assert!(text.parse::<WakePolicy>().is_err());
        }
        assert_eq!(
            WakePolicy::from_user("always").unwrap_err().to_string(),
            "\"always\" is not a wake policy: expected one of dynamic, blocking, none"
        );
    }

    #[test]
    fn destroyed_is_the_end() {
        for seen in Seen::ALL {
            assert_eq!(Seen::Destroyed.may_become(*seen), *seen == Seen::Destroyed);
        }
    }
}
