//! The service that `steps-adapter` drives: keeps things, is slow to activate them, and fails when it is told to.

use std::collections::BTreeMap;
use std::sync::Mutex;

use adapter_runtime::{HostError, Request, Response};
use async_trait::async_trait;
use serde_json::{Value, json};

use crate::fake_host::{self, Answers, Stamp, read};

#[derive(Debug, Clone)]
pub struct Thing {
    pub key: String,
    pub state: &'static str,
    pub incarnation: u64,
    pub greeting: String,
    /// Looks until a passing state has passed.
    left: u32,
}

/// How the next request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is not carried out.
    Refused,
    /// It is carried out, and the answer is lost.
    AnswerLost,
}

#[derive(Default)]
pub struct Service {
    pub things: BTreeMap<String, Thing>,
    /// Things ever made.
    pub made: u32,
    /// Activations ever begun.
    pub activations: u32,
    /// For the requests to come; none is a good one.
    pub faults: Vec<Option<Fault>>,
}

#[derive(Default)]
pub struct Things(pub Mutex<Service>);

#[async_trait]
impl Answers for Things {
    async fn answer(&self, to: &str, _: &Stamp, request: Request) -> Result<Response, HostError> {
        assert_eq!(to, "service");
        let mut service = self.0.lock().unwrap();
        let fault = if service.faults.is_empty() { None } else { service.faults.remove(0) };
        if fault == Some(Fault::Refused) {
            return Ok(fake_host::json(503, &json!({})));
        }
        let response = service.answer(&request);
        match fault {
            Some(_) => Err(HostError::Unavailable("the connection was lost".to_owned())),
            None => Ok(response),
        }
    }
}

impl Service {
    fn answer(&mut self, request: &Request) -> Response {
        let path: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
        let method = request.method.as_str();
        if (method, path.as_slice()) == ("POST", &["things"]) {
            return self.make(&read(request));
        }
        let Some(id) = path.get(1).map(|id| (*id).to_owned()) else {
            return fake_host::json(404, &json!({}));
        };
        let Some(thing) = self.things.get_mut(&id) else { return fake_host::json(404, &json!({})) };
        match (method, path.get(2).copied()) {
            ("GET", None) => {
                thing.look();
                if thing.state == "gone" {
                    self.things.remove(&id);
                    return fake_host::json(404, &json!({}));
                }
                let port = (thing.state == "active").then_some(7000);
                let body = json!({"id": id, "key": thing.key, "state": thing.state, "incarnation": thing.incarnation, "port": port});
                fake_host::json(200, &body)
            }
            ("PUT", Some("config")) => {
                let config: Value = read(request);
                thing.incarnation = config["incarnation"].as_u64().unwrap();
                thing.greeting = config["greeting"].as_str().unwrap().to_owned();
                thing.state = "configured";
                fake_host::json(200, &json!({}))
            }
            ("POST", Some("activate")) => {
                assert_eq!(thing.state, "configured", "activated in a state that can't be");
                thing.pass("activating", 2);
                self.activations += 1;
                fake_host::json(202, &json!({}))
            }
            ("POST", Some("deactivate")) => {
                thing.pass("deactivating", 2);
                fake_host::json(202, &json!({}))
            }
            ("DELETE", None) => {
                if thing.state != "removing" {
                    thing.pass("removing", 1);
                }
                fake_host::json(202, &json!({}))
            }
            other => panic!("the service has no {other:?}"),
        }
    }

    fn make(&mut self, order: &Value) -> Response {
        let key = order["key"].as_str().unwrap().to_owned();
        if let Some((id, _)) = self.things.iter().find(|(_, thing)| thing.key == key) {
            return fake_host::json(200, &json!({"id": id, "state": "new", "incarnation": 0, "port": null}));
        }
        self.made += 1;
        let id = format!("thing-{}", self.made);
        let thing = Thing { key, state: "new", incarnation: 0, greeting: String::new(), left: 0 };
        self.things.insert(id.clone(), thing);
        fake_host::json(201, &json!({"id": id, "state": "new", "incarnation": 0, "port": null}))
    }
}

impl Thing {
    fn pass(&mut self, state: &'static str, looks: u32) {
        self.state = state;
        self.left = looks;
    }

    fn look(&mut self) {
        if self.left > 0 {
            self.left -= 1;
            return;
        }
        self.state = match self.state {
            "activating" => "active",
            "deactivating" => "inactive",
            "removing" => "gone",
            other => other,
        };
    }
}
