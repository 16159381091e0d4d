//! Runs each deployment on a machine of its own: claims one from the pool and drives its daemon.

use std::collections::BTreeMap;

use daemon_driver::host::{Deployment, Machine, Requirements};
use daemon_driver::types::{Error, Request, Response, Upstream};
use daemon_driver::{Driver, Runtime};
use serde::Deserialize;
use serde_json::{Value, json};

/// The machine that the deployment holds.
struct Held(Machine);

/// The spec's field `machine`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Wanted {
    r#type: Option<String>,
    min_cpu_count: Option<u32>,
    min_memory_gb: Option<u32>,
    labels: BTreeMap<String, String>,
}

impl Runtime for Held {
    const TYPE: &'static str = "machine";
    const SUMMARY: &'static str = "A machine of its own for each deployment.";
    const GRANTS: &'static [(&'static str, &'static str)] = &[];

    fn own_field() -> Option<(&'static str, Value)> {
        Some((
            "machine",
            json!({
                "title": "Machine",
                "description": "What the machine must have. Any that is ready will do where nothing is said.",
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "type": {"title": "Type", "description": "As `hythe machines` shows it.", "type": "string", "minLength": 1},
                    "minCpuCount": {"title": "Processors", "description": "Cores at least.", "type": "integer", "minimum": 1, "maximum": 4096},
                    "minMemoryGb": {"title": "Memory", "description": "GiB at least.", "type": "integer", "minimum": 1, "maximum": 65536},
                    "labels": {"title": "Labels", "description": "All of these must be on the machine.", "type": "object", "maxProperties": 32, "additionalProperties": {"type": "string"}},
                },
            }),
        ))
    }

    fn reach(deployment: &Deployment) -> Result<Option<Self>, Error> {
        Ok(deployment.machine()?.map(Self))
    }

    fn claim(deployment: &Deployment, own: Option<Value>) -> Result<Self, Error> {
        let wanted: Wanted = match own {
            Some(own) => serde_json::from_value(own)
                .map_err(|error| Error::Invalid(format!("The spec's `machine` can't be read: {error}.")))?,
            None => Wanted::default(),
        };
        let machine = deployment.acquire_machine(&Requirements {
            type_: wanted.r#type,
            min_cpu_count: wanted.min_cpu_count,
            min_memory_gb: wanted.min_memory_gb,
            labels: wanted.labels.into_iter().collect(),
        })?;
        Ok(Self(machine))
    }

    fn release(deployment: &Deployment) -> Result<(), Error> {
        deployment.release_machine()
    }

    fn send(&self, request: &Request) -> Result<Response, Error> {
        self.0.send(request)
    }

    fn port(&self, port: u16) -> Upstream {
        Upstream::Machine(port)
    }

    fn daemon(&self) -> Upstream {
        Upstream::Agent
    }
}

type Adapter = Driver<Held>;
daemon_driver::export!(Adapter);
