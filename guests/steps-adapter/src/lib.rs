//! A runtime adapter that owes nothing to `hythe-agent`, for the host's tests: it drives a small HTTP
//! service of its own through the grant `service`, and starts in several steps. What shows here is that the
//! contract is enough for a runtime that the host has never heard of.
//!
//! The service keeps *things*:
//! - `POST /things {"key", "name"}` → 201 or 200 with the thing. The same key gives the same thing again.
//! - `PUT /things/{id}/config {…}` → 200
//! - `POST /things/{id}/activate` → 202; the thing's `state` goes `new` → `configured` → `activating` → `active`
//! - `POST /things/{id}/deactivate` → 202; `deactivating` → `inactive`
//! - `GET /things/{id}` → 200 `{"id", "key", "state", "incarnation", "port"}` or 404
//! - `DELETE /things/{id}` → 202, gone some time later
//!
//! Each call takes one step. Between steps everything is in the service and in the locator, which is the
//! thing's id; the key, made of the deployment and its incarnation, finds a thing whose making was answered to nobody.

#![expect(unsafe_code, reason = "what `export!` makes")]

mod bindings {
    wit_bindgen::generate!({ path: "../../wit/deployment", world: "runtime-adapter" });
}

use bindings::exports::hythe::deployment::project_deployment::{Descriptor, Guest};
use bindings::hythe::deployment::host::{self, Deployment};
use bindings::hythe::deployment::types::{
    Body, Error, Fetcher, Header, Phase, Place, Request, Response, Scheme, Status, Upstream,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const GRANT: &str = "service";
const POLL_MS: u32 = 20;

#[derive(Deserialize)]
struct Spec {
    greeting: String,
}

#[derive(Deserialize)]
struct Thing {
    id: String,
    state: State,
    /// Of the deployment, when it was configured; 0 before.
    incarnation: u64,
    /// Where it takes requests, when it is active.
    port: Option<u16>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum State {
    New,
    Configured,
    Activating,
    Active,
    Deactivating,
    Inactive,
    Broken,
}

fn send(method: &str, path: &str, body: Option<&Value>) -> Result<Response, Error> {
    let json = Header { name: "content-type".to_owned(), value: b"application/json".to_vec() };
    let request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        headers: body.map(|_| json).into_iter().collect(),
        body: body.map_or(Body::None, |body| Body::Inline(body.to_string().into_bytes())),
        timeout_ms: Some(5000),
    };
    host::send(GRANT, &request)
}

fn read<T: DeserializeOwned>(response: &Response) -> Result<T, Error> {
    match response.status {
        200..=299 => serde_json::from_slice(&response.body)
            .map_err(|error| Error::Unavailable(format!("The service's answer can't be read: {error}."))),
        status => Err(refusal(status)),
    }
}

fn refusal(status: u16) -> Error {
    match status {
        404 => Error::NotFound,
        429 => Error::Busy(500),
        500..=599 => Error::Unavailable(format!("The service answered {status}.")),
        _ => Error::Other((status.to_string(), format!("The service answered {status}."))),
    }
}

/// A changing step: its answer is only that it was taken.
fn step(method: &str, path: &str, body: Option<&Value>) -> Result<(), Error> {
    let response = send(method, path, body)?;
    if (200..300).contains(&response.status) { Ok(()) } else { Err(refusal(response.status)) }
}

/// The thing of this deployment; none where it was never made, or is gone.
fn thing(d: &Deployment) -> Result<Option<Thing>, Error> {
    let Some(id) = d.locator() else { return Ok(None) };
    let response = send("GET", &format!("/things/{id}"), None)?;
    if response.status == 404 { Ok(None) } else { read(&response).map(Some) }
}

fn status(phase: Phase, detail: &str) -> Status {
    let passing = matches!(phase, Phase::Starting | Phase::Stopping);
    Status {
        phase,
        detail: (!detail.is_empty()).then(|| detail.to_owned()),
        poll_after_ms: passing.then_some(POLL_MS),
        extensions: Vec::new(),
    }
}

/// Makes the thing, or finds the one whose making was answered to nobody.
fn make(d: &Deployment) -> Result<Status, Error> {
    let key = format!("{}-{}", d.id(), d.incarnation());
    let thing: Thing = read(&send("POST", "/things", Some(&json!({"key": key, "name": d.id()})))?)?;
    d.set_locator(Some(&thing.id))?;
    d.event("thing-made", &json!({"id": thing.id}).to_string());
    Ok(status(Phase::Starting, "The thing is made."))
}

fn configure(d: &Deployment, thing: &Thing) -> Result<Status, Error> {
    let spec: Spec = serde_json::from_str(&d.spec())
        .map_err(|error| Error::Invalid(format!("The spec can't be read: {error}.")))?;
    let config = json!({"greeting": spec.greeting, "incarnation": d.incarnation()});
    step("PUT", &format!("/things/{}/config", thing.id), Some(&config))?;
    Ok(status(Phase::Starting, "The thing is configured."))
}

fn advance(d: &Deployment) -> Result<Status, Error> {
    let Some(thing) = thing(d)? else {
        // Once made, never made a second time: gone is gone.
        return match d.locator() {
            Some(_) => Ok(status(Phase::Failed, "The service has lost the thing.")),
            None => make(d),
        };
    };
    if thing.incarnation > d.incarnation() {
        return Err(Error::Superseded);
    }
    let present = thing.incarnation == d.incarnation();
    match thing.state {
        State::New => configure(d, &thing),
        State::Configured if present => {
            step("POST", &format!("/things/{}/activate", thing.id), None)?;
            Ok(status(Phase::Starting, "The thing is being activated."))
        }
        // What an earlier incarnation left.
        State::Configured | State::Inactive | State::Broken if !present => configure(d, &thing),
        State::Active | State::Activating if !present => {
            step("POST", &format!("/things/{}/deactivate", thing.id), None)?;
            Ok(status(Phase::Starting, "What the earlier incarnation left is being ended."))
        }
        State::Deactivating if !present => {
            Ok(status(Phase::Starting, "What the earlier incarnation left is being ended."))
        }
        state => Ok(seen(state)),
    }
}

/// A state of this incarnation's thing.
fn seen(state: State) -> Status {
    match state {
        State::New | State::Configured => status(Phase::Starting, "The thing is not activated yet."),
        State::Activating => status(Phase::Starting, "The thing is being activated."),
        State::Active => status(Phase::Running, ""),
        State::Deactivating => status(Phase::Stopping, ""),
        State::Inactive => status(Phase::Stopped, ""),
        State::Broken => status(Phase::Failed, "The thing broke."),
    }
}

struct Steps;

impl Guest for Steps {
    fn describe() -> Descriptor {
        Descriptor {
            runtime_type: "steps".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "Things of a small service that is not ours.".to_owned(),
            spec_schema: json!({
                "type": "object",
                "required": ["greeting"],
                "properties": {"greeting": {"type": "string", "minLength": 1}},
                "additionalProperties": false,
            })
            .to_string(),
            grants: vec![(GRANT.to_owned(), "The service that keeps the things.".to_owned())],
            extensions: Vec::new(),
        }
    }

    fn start(d: &Deployment) -> Result<Status, Error> {
        advance(d)
    }

    fn stop(d: &Deployment, _grace_ms: u32) -> Result<Status, Error> {
        let Some(thing) = thing(d)? else { return Ok(status(Phase::Stopped, "")) };
        match thing.state {
            State::Active | State::Activating => {
                step("POST", &format!("/things/{}/deactivate", thing.id), None)?;
                Ok(status(Phase::Stopping, ""))
            }
            State::Deactivating => Ok(status(Phase::Stopping, "")),
            State::New | State::Configured | State::Inactive | State::Broken => {
                Ok(status(Phase::Stopped, ""))
            }
        }
    }

    fn restart(d: &Deployment, _grace_ms: u32) -> Result<Status, Error> {
        advance(d)
    }

    fn destroy(d: &Deployment) -> Result<Status, Error> {
        let Some(thing) = thing(d)? else {
            d.set_locator(None)?;
            return Ok(status(Phase::Destroyed, ""));
        };
        match step("DELETE", &format!("/things/{}", thing.id), None) {
            Ok(()) | Err(Error::NotFound) => Ok(status(Phase::Stopping, "The thing is being removed.")),
            Err(error) => Err(error),
        }
    }

    fn inspect(d: &Deployment) -> Result<Status, Error> {
        let Some(thing) = thing(d)? else {
            return Ok(match d.locator() {
                Some(_) => status(Phase::Stopped, "The service has no such thing (any more)."),
                None => status(Phase::Created, ""),
            });
        };
        if thing.incarnation != d.incarnation() && thing.incarnation != 0 {
            return Ok(match thing.state {
                State::Active | State::Activating | State::Deactivating => {
                    status(Phase::Unknown, "An earlier incarnation has not ended yet.")
                }
                _ => status(Phase::Stopped, "This incarnation has not been started."),
            });
        }
        Ok(seen(thing.state))
    }

    fn get_fetcher(d: &Deployment, service: String) -> Result<Fetcher, Error> {
        let services = d.services();
        let known =
            services.iter().enumerate().find(|(_, s)| s.name == service || s.port.to_string() == service);
        // A thing has one port: it is the default service.
        if known.is_none_or(|(index, _)| index != 0) {
            return Err(Error::NotFound);
        }
        let thing = thing(d)?.ok_or(Error::NotFound)?;
        let Some(port) = thing.port.filter(|_| thing.state == State::Active) else {
            return Err(Error::Busy(100));
        };
        Ok(Fetcher {
            upstream: Upstream::Granted(Place { grant: GRANT.to_owned(), address: None, port: Some(port) }),
            scheme: Scheme::Http,
            host_header: None,
            set_headers: vec![Header { name: "x-thing".to_owned(), value: thing.id.into_bytes() }],
            ttl_ms: Some(60_000),
            extensions: Vec::new(),
        })
    }
}

bindings::export!(Steps with_types_in bindings);
