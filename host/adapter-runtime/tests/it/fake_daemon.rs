//! A `hythe-agent` in memory: its HTTP answers and its fence, without processes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use adapter_runtime::{Body, HostError, Request, Response};
use agent_api::{
    LocalPort, Problem, ServicePort, StopRequest, WorkloadPhase, WorkloadSpec, WorkloadStatus, error_code,
};
use async_trait::async_trait;
use bytes::Bytes;

use crate::fake_host::{Answers, Stamp, json, read};

#[derive(Default)]
pub struct State {
    pub workloads: BTreeMap<String, Workload>,
    pub sources: BTreeSet<String>,
    /// Starts ever.
    pub starts: u32,
    /// Method and path of every request.
    pub requests: Vec<String>,
    /// Nobody answers.
    pub away: bool,
    pub graces: Vec<u64>,
}

pub struct Workload {
    pub spec: WorkloadSpec,
    pub status: WorkloadStatus,
    fence: u64,
    /// The incarnation whose start was accepted.
    started: u64,
    /// Looks until a passing phase has passed.
    left: u32,
}

#[derive(Default)]
pub struct FakeDaemon(pub Mutex<State>);

fn problem(status: u16, code: &str) -> Response {
    json(status, &Problem { code: code.to_owned(), message: format!("the daemon says {code}") })
}

#[async_trait]
impl Answers for FakeDaemon {
    async fn answer(&self, to: &str, stamp: &Stamp, request: Request) -> Result<Response, HostError> {
        assert!(to == "local" || to.starts_with("mach_"), "sent to {to}");
        let mut state = self.0.lock().unwrap();
        if state.away {
            return Err(HostError::Unavailable("connection refused".to_owned()));
        }
        state.requests.push(format!("{} {}", request.method, request.path));
        Ok(state.answer(stamp, &request))
    }
}

impl State {
    fn answer(&mut self, stamp: &Stamp, request: &Request) -> Response {
        let path = request.path.split('?').next().unwrap_or_default();
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match (request.method.as_str(), parts.as_slice()) {
            ("HEAD", ["v1", "sources", digest]) => {
                let status = if self.sources.contains(*digest) { 200 } else { 404 };
                Response { status, headers: Vec::new(), body: Bytes::new() }
            }
            ("PUT", ["v1", "sources", digest]) => {
                assert_eq!(request.body, Body::Artifact((*digest).to_owned()));
                self.sources.insert((*digest).to_owned());
                Response { status: 201, headers: Vec::new(), body: Bytes::new() }
            }
            (method, ["v1", "workloads", id, rest @ ..]) => {
                assert_eq!(*id, stamp.deployment, "a request about another deployment");
                self.workload(stamp, method, rest, request)
            }
            other => panic!("the daemon has no {other:?}"),
        }
    }

    fn workload(&mut self, stamp: &Stamp, method: &str, rest: &[&str], request: &Request) -> Response {
        let changes = method != "GET";
        if changes && self.workloads.get(&stamp.deployment).is_some_and(|w| w.fence > stamp.operation) {
            return problem(409, error_code::SUPERSEDED);
        }
        match (method, rest) {
            ("PUT", []) => return self.start(stamp, read(request)),
            ("DELETE", []) if !self.workloads.contains_key(&stamp.deployment) => {
                return problem(404, error_code::NOT_FOUND);
            }
            _ => {}
        }
        let Some(workload) = self.workloads.get_mut(&stamp.deployment) else {
            return problem(404, error_code::NOT_FOUND);
        };
        if changes {
            workload.fence = stamp.operation;
            workload.status.incarnation = workload.status.incarnation.max(stamp.incarnation);
        }
        match (method, rest) {
            ("GET", []) => {
                workload.look();
                json(200, &workload.status)
            }
            ("POST", ["stop"]) => {
                let StopRequest { grace_ms } = read(request);
                self.graces.push(grace_ms);
                workload.look();
                if matches!(workload.status.phase, WorkloadPhase::Running | WorkloadPhase::Starting) {
                    workload.pass(WorkloadPhase::Stopping);
                }
                json(200, &workload.status)
            }
            ("DELETE", []) => {
                if workload.status.phase == WorkloadPhase::Destroyed {
                    return json(200, &workload.status);
                }
                workload.look();
                let phase = match workload.status.phase {
                    WorkloadPhase::Stopped | WorkloadPhase::Failed => WorkloadPhase::Destroyed,
                    _ => WorkloadPhase::Stopping,
                };
                if phase == WorkloadPhase::Stopping && workload.status.phase != phase {
                    workload.pass(phase);
                }
                workload.status.phase = phase;
                json(200, &workload.status)
            }
            // As the real one: a service has its port whether anything listens or not.
            ("GET", ["ports", service]) => {
                let known = workload.status.services.iter().find(|s| s.name == *service);
                let running = workload.status.phase == WorkloadPhase::Running;
                match known.map(|known| known.local_port).or((running && *service == "5173").then_some(5173))
                {
                    Some(local_port) => json(200, &LocalPort { local_port }),
                    None => problem(404, error_code::NOT_FOUND),
                }
            }
            other => panic!("the daemon has no {other:?}"),
        }
    }

    fn start(&mut self, stamp: &Stamp, spec: WorkloadSpec) -> Response {
        if let Some(source) = &spec.source
            && !self.sources.contains(source)
        {
            return problem(424, error_code::SOURCE_MISSING);
        }
        if let Some(workload) = self.workloads.get_mut(&stamp.deployment) {
            workload.look();
            workload.fence = stamp.operation;
            if workload.started >= stamp.incarnation {
                return json(200, &workload.status);
            }
        }
        self.starts += 1;
        let services = spec.services.iter().enumerate().map(|(index, service)| ServicePort {
            name: service.name.clone(),
            port: service.port,
            local_port: 40_000 + index as u16,
        });
        let status = WorkloadStatus {
            deployment: stamp.deployment.clone(),
            generation: 1,
            incarnation: stamp.incarnation,
            operation: stamp.operation,
            phase: WorkloadPhase::Starting,
            detail: Some("in set-up".to_owned()),
            attempts: 0,
            pid: None,
            last_exit: None,
            since_ms: 0,
            services: services.collect(),
        };
        let answer = json(200, &status);
        let workload = Workload { spec, status, fence: stamp.operation, started: stamp.incarnation, left: 1 };
        self.workloads.insert(stamp.deployment.clone(), workload);
        answer
    }
}

impl Workload {
    fn pass(&mut self, phase: WorkloadPhase) {
        self.status.phase = phase;
        self.left = 1;
    }

    fn look(&mut self) {
        if self.left > 0 {
            self.left -= 1;
            return;
        }
        self.status.phase = match self.status.phase {
            WorkloadPhase::Starting => WorkloadPhase::Running,
            WorkloadPhase::Stopping => WorkloadPhase::Stopped,
            other => other,
        };
    }
}
