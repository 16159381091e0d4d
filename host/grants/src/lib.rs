//! What adapters may reach: names that the operator gave to places, and nothing else.
//!
//! Always holds: an adapter names a grant, never an address of its own; a call outside the grant's
//! methods and paths is refused before a connection is opened; a credential is added here and never
//! reaches a guest, nor users' traffic; a place outside the grant is refused.
//!
//! Deliberately absent: who holds which machine (`reconciler`), pooling of users' connections (`ingress`).

mod http_target;
mod pattern;
mod transfer;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use adapter_runtime::{HostError, Place, Request, Response};
use agent_client::AgentClient;
use arc_swap::ArcSwapOption;
use artifacts::ArtifactStore;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use http_body_util::BodyExt;
use model::Fence;

pub use http_target::{HttpTarget, TargetError};
pub use pattern::Pattern;
pub use transfer::{send_to_agent, stream_from_agent};

/// Where a grant leads.
#[derive(Clone)]
pub enum Target {
    /// A daemon that the host runs beside itself; empty while it is away. A port of a place is a
    /// local port, dialled directly: the daemon shares the host's network.
    Agent { name: String, client: Arc<ArcSwapOption<AgentClient>> },
    /// An HTTP service.
    Http(HttpTarget),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Agent { name, .. } => write!(f, "agent:{name}"),
            Self::Http(target) => target.fmt(f),
        }
    }
}

/// One grant.
#[derive(Clone)]
pub struct Grant {
    pub target: Target,
    /// Upper case; none: all.
    pub methods: Option<Vec<String>>,
    /// None: all.
    pub paths: Option<Vec<Pattern>>,
}

/// Where a place of a grant is reached by users' connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Granted {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Bytes as they come.
pub type ByteStream = BoxStream<'static, std::io::Result<Bytes>>;

/// All grants of one adapter, by name.
#[derive(Clone, Default)]
pub struct Grants {
    grants: BTreeMap<String, Grant>,
}

impl Grants {
    #[must_use]
    pub fn new(grants: BTreeMap<String, Grant>) -> Self {
        Self { grants }
    }

    /// The grants with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Grant)> {
        self.grants.iter().map(|(name, grant)| (name.as_str(), grant))
    }

    /// The grant of this name.
    ///
    /// # Errors
    /// `denied` where the operator gave none.
    pub fn get(&self, name: &str) -> Result<&Grant, HostError> {
        self.grants.get(name).ok_or_else(|| {
            HostError::Denied(format!("the operator's configuration gives this adapter no grant {name:?}"))
        })
    }

    /// An adapter's own call. `fence` goes along where the place is a daemon.
    ///
    /// # Errors
    /// `denied` outside the grant; `unavailable` where the place does not answer.
    pub async fn send(
        &self,
        name: &str,
        request: Request,
        fence: Option<Fence>,
        artifacts: &ArtifactStore,
    ) -> Result<Response, HostError> {
        let grant = self.get(name)?;
        grant.allow(name, &request)?;
        match &grant.target {
            Target::Agent { client, .. } => {
                let client = client.load_full().ok_or_else(|| away(name))?;
                send_to_agent(&client, request, fence, artifacts).await
            }
            Target::Http(target) => target.send(request, artifacts).await,
        }
    }

    /// A call whose answer is a stream, which the host reads on.
    ///
    /// # Errors
    /// As [`send`](Self::send); an answer that is no success by its status.
    pub async fn open(
        &self,
        name: &str,
        request: Request,
        artifacts: &ArtifactStore,
    ) -> Result<ByteStream, HostError> {
        let grant = self.get(name)?;
        grant.allow(name, &request)?;
        match &grant.target {
            Target::Agent { client, .. } => {
                let client = client.load_full().ok_or_else(|| away(name))?;
                let body = stream_from_agent(&client, request, None, artifacts).await?;
                Ok(body.map_err(std::io::Error::other).boxed())
            }
            Target::Http(target) => {
                let (head, body) = target.open(request, artifacts).await?;
                match head.status.as_u16() {
                    200..300 => Ok(body.into_data_stream().map_err(std::io::Error::other).boxed()),
                    404 => Err(HostError::NotFound),
                    status => Err(HostError::Unavailable(format!("{target} answered {status}"))),
                }
            }
        }
    }

    /// Where users' connections to a place of a grant go.
    ///
    /// # Errors
    /// `denied` where the place is outside the grant, `unavailable` where its name can't be resolved.
    pub async fn resolve(&self, place: &Place) -> Result<Granted, HostError> {
        let outside =
            |what: &str| HostError::Denied(format!("the grant {:?} does not cover {what}", place.grant));
        match (&self.get(&place.grant)?.target, &place.address, place.port) {
            (Target::Agent { .. }, None, Some(port)) => {
                Ok(Granted::Tcp(SocketAddr::from(([127, 0, 0, 1], port))))
            }
            (Target::Agent { .. }, _, _) => Err(outside("an address: name a port of the daemon's machine")),
            (Target::Http(target), None, None) => target.resolve().await,
            (Target::Http(target), address, port) => {
                if target.is(address.as_deref(), port) {
                    target.resolve().await
                } else {
                    Err(outside(&format!(
                        "{}:{}",
                        address.as_deref().unwrap_or("its address"),
                        port.unwrap_or_default()
                    )))
                }
            }
        }
    }

    /// The daemon that a grant leads to, for streams that the daemon serves.
    ///
    /// # Errors
    /// `denied` where the grant is of another kind, `unavailable` while the daemon is away.
    pub fn agent(&self, name: &str) -> Result<Arc<AgentClient>, HostError> {
        match &self.get(name)?.target {
            Target::Agent { client, .. } => client.load_full().ok_or_else(|| away(name)),
            Target::Http(_) => Err(HostError::Denied(format!("the grant {name:?} leads to no daemon"))),
        }
    }
}

impl Grant {
    /// Whether the grant covers the call's method and path.
    ///
    /// # Errors
    /// `denied`, naming what is outside.
    pub fn allow(&self, name: &str, request: &Request) -> Result<(), HostError> {
        let method = request.method.to_ascii_uppercase();
        if self.methods.as_ref().is_some_and(|methods| !methods.contains(&method)) {
            return Err(HostError::Denied(format!("the grant {name:?} does not cover the method {method}")));
        }
        let path = request.path.split('?').next().unwrap_or_default();
        // What a service may read as another path than the pattern did.
        let lower = path.to_ascii_lowercase();
        let is_hidden = ["\\", "#", "%2f", "%5c", "%25"].iter().any(|part| lower.contains(part));
        if self.paths.is_some() && is_hidden {
            return Err(HostError::Denied(format!(
                "the path {path:?} has an encoded `/`, `\\` or `%`, or a `#`, which the grant {name:?} can't be held against"
            )));
        }
        if !path.starts_with('/') || path.split('/').any(is_dot_segment) {
            return Err(HostError::Denied(format!(
                "the path {path:?} must begin with `/` and have no `.` or `..` in it"
            )));
        }
        if self.paths.as_ref().is_some_and(|paths| !paths.iter().any(|pattern| pattern.matches(path))) {
            return Err(HostError::Denied(format!("the grant {name:?} does not cover the path {path}")));
        }
        Ok(())
    }
}

/// `.` and `..`, also percent-encoded.
fn is_dot_segment(part: &str) -> bool {
    let plain = part.to_ascii_lowercase().replace("%2e", ".");
    plain == "." || plain == ".."
}

fn away(name: &str) -> HostError {
    HostError::Unavailable(format!("the daemon behind the grant {name:?} is away"))
}

#[cfg(test)]
mod tests {
    use adapter_runtime::Body;

    use super::*;

    #[test]
    fn a_path_that_could_be_read_in_two_ways_is_outside() {
        let target = Target::Http(HttpTarget::parse("http://127.0.0.1:1", None).unwrap());
        let paths = Some(vec![Pattern::new("/apps/*")]);
        let grant = Grant { target, methods: Some(vec!["GET".to_owned()]), paths };
        let allows = |method: &str, path: &str| {
            let request = Request {
                method: method.to_owned(),
                path: path.to_owned(),
                headers: Vec::new(),
                body: Body::None,
                timeout: None,
            };
            grant.allow("g", &request).is_ok()
        };
        assert!(allows("GET", "/apps/a?b=%2f"));
        assert!(allows("get", "/apps/a"));
        assert!(!allows("POST", "/apps/a"));
        for path in [
            "/other",
            "apps/a",
            "/apps/../x",
            "/apps/%2e%2E/x",
            "/apps/..%2fx",
            "/apps/..\\x",
            "/apps/%252e",
            "/apps/a#b",
        ] {
            assert!(!allows("GET", path), "{path}");
        }
    }

    #[test]
    fn a_credential_in_an_address_is_refused_and_not_repeated() {
        let error = HttpTarget::parse("http://user:secret@host:1", None).err().unwrap().to_string();
        assert!(error.contains("authorization") && !error.contains("secret"), "{error}");
    }
}
