//! A runtime adapter that decides about each request (`http-routing`), for the host's tests and as an example:
//! paths that lead to another service, a share of clients that gets the next version, and a closed sign.
//!
//! What it runs is not its own: each service of a deployment is where the grant of its name leads, and it keeps
//! no more than whether it was started. What is here to be seen is the way of the settings: `get-fetcher`,
//! called once, makes of the spec what a decision needs; the host puts that before each decision, and asks
//! about no request where there is nothing to decide.

#![expect(unsafe_code, reason = "what `export!` makes")]

mod bindings {
    wit_bindgen::generate!({ path: "../../wit/deployment", world: "routing-runtime-adapter" });
}

mod routing;

use bindings::exports::hythe::deployment::project_deployment::{Descriptor, Guest};
use bindings::hythe::deployment::host::Deployment;
use bindings::hythe::deployment::types::{Error, Fetcher, Phase, Place, Scheme, Status, Upstream};
use routing::Settings;
use serde_json::json;

fn status(phase: Phase) -> Status {
    Status { phase, detail: None, poll_after_ms: None, extensions: Vec::new() }
}

struct Canary;

impl Guest for Canary {
    fn describe() -> Descriptor {
        Descriptor {
            runtime_type: "canary".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "Shares requests out among services that run elsewhere.".to_owned(),
            spec_schema: json!({
                "type": "object",
                "properties": {
                    "closed": {"type": "string", "description": "Answer every request with this text and 503."},
                    "paths": {
                        "description": "The first one whose prefix a path has (whole segments) decides.",
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["prefix", "service"],
                            "properties": {
                                "prefix": {"type": "string", "pattern": "^/."},
                                "service": {"type": "string"},
                                "strip": {"type": "boolean", "description": "Take the prefix off the path."}
                            },
                            "additionalProperties": false
                        }
                    },
                    "canary": {
                        "type": "object",
                        "required": ["service", "percent"],
                        "properties": {
                            "service": {"type": "string"},
                            "percent": {"type": "integer", "minimum": 0, "maximum": 100}
                        },
                        "additionalProperties": false
                    }
                },
                "additionalProperties": false
            })
            .to_string(),
            // One for each service, by its name: they are the deployments' to choose.
            grants: Vec::new(),
            extensions: Vec::new(),
        }
    }

    fn start(d: &Deployment) -> Result<Status, Error> {
        d.set_locator(Some("started"))?;
        Ok(status(Phase::Running))
    }

    fn stop(d: &Deployment, _grace_ms: u32) -> Result<Status, Error> {
        d.set_locator(Some("stopped"))?;
        Ok(status(Phase::Stopped))
    }

    fn restart(d: &Deployment, _grace_ms: u32) -> Result<Status, Error> {
        Self::start(d)
    }

    fn destroy(d: &Deployment) -> Result<Status, Error> {
        d.set_locator(None)?;
        Ok(status(Phase::Destroyed))
    }

    fn inspect(d: &Deployment) -> Result<Status, Error> {
        Ok(status(match d.locator().as_deref() {
            None => Phase::Created,
            Some("started") => Phase::Running,
            Some(_) => Phase::Stopped,
        }))
    }

    fn get_fetcher(d: &Deployment, service: String) -> Result<Fetcher, Error> {
        let services = d.services();
        let found = services.iter().position(|s| s.name == service || s.port.to_string() == service);
        let index = found.ok_or(Error::NotFound)?;
        let settings: Settings = serde_json::from_str(&d.spec())
            .map_err(|error| Error::Invalid(format!("The spec can't be read: {error}.")))?;
        // Only the default service's requests are shared out.
        let config = if index == 0 && settings.has_effect() { json!(settings) } else { json!(false) };
        Ok(Fetcher {
            upstream: Upstream::Granted(Place {
                // The operator names a place for each service.
                grant: services[index].name.clone(),
                address: None,
                port: None,
            }),
            scheme: Scheme::Http,
            host_header: None,
            set_headers: Vec::new(),
            ttl_ms: None,
            extensions: vec![("http-routing".to_owned(), config.to_string())],
        })
    }
}

bindings::export!(Canary with_types_in bindings);
