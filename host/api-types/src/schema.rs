//! Shapes, for the API's description only, of types that come from crates without one (`model`,
//! `agent-api`). A test holds each against the real thing.

#![expect(dead_code, reason = "only their schemas are used")]

use utoipa::ToSchema;

macro_rules! mirror_enum {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(ToSchema)]
        pub enum $name { $(#[schema(rename = $text)] $variant,)+ }
    };
}

mirror_enum!(/// What the user wants of a deployment.
    Wanted { Running = "running", Stopped = "stopped", Destroyed = "destroyed", });
mirror_enum!(/// What was last seen of a deployment.
Seen {
    Created = "created",
    Starting = "starting",
    Running = "running",
    Stopping = "stopping",
    Stopped = "stopped",
    Failed = "failed",
    Destroyed = "destroyed",
});
mirror_enum!(/// Whether a running deployment answers as it should.
    Health { Unknown = "unknown", Healthy = "healthy", Unhealthy = "unhealthy", });
mirror_enum!(/// What a request to a stopped deployment does: it starts it, and a browser sees a waiting page while
    /// all others wait (`dynamic`); it starts it and waits (`blocking`); it is refused (`none`).
    WakePolicy { Dynamic = "dynamic", Blocking = "blocking", None = "none", });
mirror_enum!(/// Why a deployment is wanted stopped, where nobody said so.
    StopReason { Idle = "idle", });
mirror_enum!(/// What a service speaks on its port.
    Scheme { Http = "http", Https = "https", H2c = "h2c", });
mirror_enum!(/// Where a machine is in its life.
MachineStatus {
    Launching = "launching",
    Ready = "ready",
    InUse = "in_use",
    Offline = "offline",
    Retired = "retired",
});

/// How a process ended.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub enum ExitKind {
    Code,
    Signal,
    TimedOut,
    /// It ended while no daemon watched.
    Unknown,
}

/// How a process ended: `{"kind": "code", "value": 0}`, `{"kind": "signal", "value": "SIGKILL"}`,
/// `{"kind": "timedOut"}` or `{"kind": "unknown"}`.
#[derive(ToSchema)]
pub struct Exit {
    kind: ExitKind,
    /// The code (a number) or the signal's name (a string); absent otherwise.
    #[schema(value_type = Object, nullable = false)]
    value: Option<serde_json::Value>,
}

/// One line that a deployment printed.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct LogLine {
    /// Unix time in milliseconds.
    at_ms: u64,
    /// `stdout`, `stderr`, `setup` or `hythe` (the daemon's own words).
    origin: String,
    text: String,
}

/// What a machine is.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct MachineFacts {
    name: String,
    os: String,
    arch: String,
    cpu_count: u32,
    memory_bytes: u64,
}

/// What a machine sends to join.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct RegistrationRequest {
    /// One-time token, `amt_` and 48 hex digits.
    token: String,
    facts: MachineFacts,
    /// Address at which the host reaches the daemon.
    address: String,
    port: u16,
    /// Lower-case hex SHA-256 of the daemon's certificate (DER).
    certificate_sha256: String,
}

/// What the host answers to a machine that joins. Given once.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct RegistrationResponse {
    machine_id: String,
    /// 32 bytes, lower-case hex.
    shared_key: String,
    /// Lower-case hex SHA-256 of the host's client certificate (DER).
    host_certificate_sha256: String,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};
    use utoipa::PartialSchema;

    fn schema<T: PartialSchema>() -> Value {
        serde_json::to_value(T::schema()).unwrap()
    }

    #[track_caller]
    fn values<T: PartialSchema>(real: &[&str]) {
        assert_eq!(schema::<T>()["enum"], json!(real));
    }

    #[test]
    fn enums_mirror_the_models() {
        values::<super::Wanted>(&model::Wanted::ALL.iter().map(|v| v.as_str()).collect::<Vec<_>>());
        values::<super::Seen>(&model::Seen::ALL.iter().map(|v| v.as_str()).collect::<Vec<_>>());
        values::<super::Health>(&model::Health::ALL.iter().map(|v| v.as_str()).collect::<Vec<_>>());
        values::<super::WakePolicy>(&model::WakePolicy::ALL.iter().map(|v| v.as_str()).collect::<Vec<_>>());
        values::<super::StopReason>(&model::StopReason::ALL.iter().map(|v| v.as_str()).collect::<Vec<_>>());
        values::<super::Scheme>(&model::Scheme::ALL.iter().map(|v| v.as_str()).collect::<Vec<_>>());
        values::<super::MachineStatus>(
            &model::MachineStatus::ALL.iter().map(|v| v.as_str()).collect::<Vec<_>>(),
        );
    }

    #[track_caller]
    fn fields<T: PartialSchema>(real: impl serde::Serialize) {
        let real = serde_json::to_value(real).unwrap();
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(keys(&schema::<T>()["properties"]), keys(&real));
    }

    #[test]
    fn structs_mirror_the_agent_api() {
        let facts = agent_api::MachineFacts {
            name: String::new(),
            os: String::new(),
            arch: String::new(),
            cpu_count: 1,
            memory_bytes: 1,
        };
        fields::<super::MachineFacts>(&facts);
        fields::<super::RegistrationRequest>(agent_api::RegistrationRequest {
            token: String::new(),
            facts,
            address: String::new(),
            port: 1,
            certificate_sha256: String::new(),
        });
        fields::<super::RegistrationResponse>(agent_api::RegistrationResponse {
            machine_id: String::new(),
            shared_key: String::new(),
            host_certificate_sha256: String::new(),
        });
        fields::<super::LogLine>(agent_api::LogLine { at_ms: 0, origin: String::new(), text: String::new() });
        fields::<super::Exit>(agent_api::Exit::Code(0));
        let kinds = schema::<super::ExitKind>()["enum"].clone();
        let real = [
            agent_api::Exit::Code(0),
            agent_api::Exit::Signal(String::new()),
            agent_api::Exit::TimedOut,
            agent_api::Exit::Unknown,
        ];
        assert_eq!(kinds, json!(real.map(|exit| serde_json::to_value(exit).unwrap()["kind"].clone())));
    }
}
