//! The operator's configuration, parsed and checked whole before anything binds.
//!
//! Authoritative for listeners, adapters, grants and daemons. Unknown keys are errors that name the key,
//! its line and the nearest right one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use model::RuntimeType;
use serde::Deserialize;

const DEFAULTS: &str = include_str!("default.toml");

/// All of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(default)]
    pub database: Database,
    pub ingress: Ingress,
    pub api: Api,
    #[serde(default)]
    pub deployments: Deployments,
    #[serde(default)]
    pub agents: BTreeMap<String, LocalAgent>,
    pub adapters: BTreeMap<RuntimeType, Adapter>,
}

/// `[database]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// `postgres://…`; none: a private cluster in the data directory. `DATABASE_URL` comes before it.
    pub url: Option<String>,
    /// Folder with `postgres` and `initdb`, for the private cluster.
    pub binaries: Option<PathBuf>,
}

/// `[ingress]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ingress {
    pub listen: Vec<SocketAddr>,
    /// `<slug>.<base_domain>` leads to a project.
    pub base_domain: String,
    /// Threads that serve; none: one a core.
    pub workers: Option<usize>,
    /// How long a request waits for a stopped deployment to start.
    #[serde(default = "wake_timeout", with = "humantime_serde")]
    pub wake_timeout: Duration,
    /// Requests that may wait for one deployment at once.
    #[serde(default = "wake_queue")]
    pub wake_queue: usize,
    /// What stands in the `User-Agent` of health checkers and monitors, whose requests are no activity and wake
    /// nothing; none: the usual ones.
    pub quiet_agents: Option<Vec<String>>,
    /// How long a connection may take.
    #[serde(default = "connect_timeout", with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// How long open requests may last when the host is told to stop.
    #[serde(default = "drain", with = "humantime_serde")]
    pub drain: Duration,
}

/// `[api]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    pub listen: SocketAddr,
}

/// `[deployments]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Deployments {
    /// How long a replaced deployment stays reachable at its own host and keeps its open streams.
    #[serde(with = "humantime_serde")]
    pub drain_grace: Duration,
    /// How long a host owns an operation without a sign of life.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
    /// The longest call of an adapter.
    #[serde(with = "humantime_serde")]
    pub call_timeout: Duration,
    /// From asking a workload to end to ending it.
    #[serde(with = "humantime_serde")]
    pub stop_grace: Duration,
    /// Between two looks at a running deployment.
    #[serde(with = "humantime_serde")]
    pub inspect_every: Duration,
    /// Between two health checks of a healthy one.
    #[serde(with = "humantime_serde")]
    pub health_every: Duration,
    /// Operations at once.
    pub concurrency: usize,
}

impl Default for Deployments {
    fn default() -> Self {
        Self {
            drain_grace: Duration::from_secs(600),
            lease: Duration::from_secs(15),
            call_timeout: Duration::from_secs(30),
            stop_grace: Duration::from_secs(10),
            inspect_every: Duration::from_secs(5),
            health_every: Duration::from_secs(10),
            concurrency: 32,
        }
    }
}

/// `[agents.<name>]`: a daemon that this host runs beside itself.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LocalAgent {
    /// None: a free port of 127.0.0.1.
    pub listen: Option<SocketAddr>,
    /// `auto` (an unprivileged user of each workload's own, where the host is root), `none`, or a name.
    pub workload_user: Option<String>,
}

/// `[adapters.<runtime type>]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adapter {
    /// A file; a bare name is looked for among the adapters that ship.
    pub component: PathBuf,
    /// What `hythe deploy` takes where the project says nothing. At most one.
    #[serde(default)]
    pub default: bool,
    #[serde(default)]
    pub grants: BTreeMap<String, Grant>,
}

/// `[adapters.<runtime type>.grants.<name>]`: one of `agent` and `address`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// A daemon of `[agents]`.
    pub agent: Option<String>,
    /// `http://host:port` or `unix:/path`.
    pub address: Option<String>,
    /// None: all.
    pub methods: Option<Vec<String>>,
    /// Patterns where `*` stands for any text; none: all.
    pub paths: Option<Vec<String>>,
    /// `authorization` is added to the adapter's own calls, never to users' traffic.
    pub authorization: Option<String>,
}

fn wake_timeout() -> Duration {
    Duration::from_secs(30)
}

fn wake_queue() -> usize {
    1_000
}

fn connect_timeout() -> Duration {
    Duration::from_secs(5)
}

fn drain() -> Duration {
    Duration::from_secs(30)
}

impl Config {
    /// Reads the operator's file over the defaults; none: the defaults.
    pub fn load(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Self::parse("", "the defaults") };
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("can't read the configuration {}", path.display()))?;
        Self::parse(&text, &path.display().to_string())
    }

    fn parse(text: &str, name: &str) -> anyhow::Result<Self> {
        // By itself first, so that an error points into the operator's own text.
        if let Err(error) = toml::from_str::<Operator>(text) {
            bail!("{name}: {}", describe(&error, text));
        }
        let mut merged: toml::Table = toml::from_str(DEFAULTS)?;
        for (section, value) in toml::from_str::<toml::Table>(text)? {
            match (merged.get_mut(&section), value) {
                (Some(toml::Value::Table(base)), toml::Value::Table(over)) if is_merged(&section) => {
                    base.extend(over)
                }
                (_, value) => {
                    merged.insert(section, value);
                }
            }
        }
        let config: Self = merged
            .try_into()
            .map_err(|error: toml::de::Error| anyhow::anyhow!("{name}: {}", error.message()))?;
        config.check().with_context(|| name.to_owned())?;
        Ok(config)
    }

    fn check(&self) -> anyhow::Result<()> {
        if self.ingress.listen.is_empty() {
            bail!("ingress.listen is empty: give it at least one address, such as \"127.0.0.1:8080\"");
        }
        let base = &self.ingress.base_domain;
        if base.is_empty()
            || base.starts_with('.')
            || base.ends_with('.')
            || base.chars().any(|c| c.is_ascii_uppercase() || c == ':')
        {
            bail!(
                "ingress.base_domain {base:?} must be a lower-case domain without a port or a dot at its ends, such as \"apps.example.com\""
            );
        }
        let defaults: Vec<_> = self
            .adapters
            .iter()
            .filter(|(_, adapter)| adapter.default)
            .map(|(name, _)| name.as_str())
            .collect();
        if defaults.len() > 1 {
            bail!("adapters {} are all marked `default`: keep one", defaults.join(", "));
        }
        for (runtime, adapter) in &self.adapters {
            for (name, grant) in &adapter.grants {
                let place = format!("adapters.{runtime}.grants.{name}");
                match (&grant.agent, &grant.address) {
                    (Some(agent), None) if !self.agents.contains_key(agent) => {
                        let known = self.agents.keys().cloned().collect::<Vec<_>>().join(", ");
                        bail!("{place}.agent names {agent:?}, which [agents] does not have: it has {known}");
                    }
                    (Some(_), None) | (None, Some(_)) => {}
                    _ => bail!("{place} must have exactly one of `agent` and `address`"),
                }
            }
        }
        Ok(())
    }
}

fn is_merged(section: &str) -> bool {
    !matches!(section, "adapters" | "agents")
}

/// As [`Config`], each section optional: for errors with a line of the operator's file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read for its errors")]
struct Operator {
    database: Option<Database>,
    ingress: Option<toml::Table>,
    api: Option<toml::Table>,
    deployments: Option<Deployments>,
    agents: Option<BTreeMap<String, LocalAgent>>,
    adapters: Option<BTreeMap<RuntimeType, Adapter>>,
}

/// What is wrong, where, and the nearest right key.
fn describe(error: &toml::de::Error, text: &str) -> String {
    let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    let mut message = match line {
        Some(line) => format!("line {line}: {}", error.message()),
        None => error.message().to_owned(),
    };
    if let Some(nearest) = nearest_key(error.message()) {
        message.push_str(&format!(" (did you mean `{nearest}`?)"));
    }
    message
}

/// From serde's "unknown field `x`, expected one of `a`, `b`".
fn nearest_key(message: &str) -> Option<&str> {
    let mut quoted = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    let unknown = quoted.next()?;
    quoted
        .map(|known| (strsim::damerau_levenshtein(unknown, known), known))
        .filter(|(distance, _)| *distance <= 3)
        .min()
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str, because: &str) {
        let error = format!("{:#}", Config::parse(text, "host.toml").unwrap_err());
        assert!(error.contains(because), "{error}");
    }

    #[test]
    fn the_defaults_are_a_configuration() {
        let config = Config::load(None).unwrap();
        assert_eq!(config.ingress.base_domain, "localhost");
        assert_eq!(config.adapters.values().filter(|adapter| adapter.default).count(), 1);
    }

    #[test]
    fn a_section_replaces_its_keys_and_adapters_the_whole() {
        let config = Config::parse(
            "[ingress]\nbase_domain = \"apps.test\"\n[adapters.mine]\ncomponent = \"./mine.wasm\"",
            "host.toml",
        )
        .unwrap();
        assert_eq!(config.ingress.listen.len(), 1);
        assert_eq!(config.adapters.len(), 1);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        refused("[ingres]", "host.toml: line 1: unknown field `ingres`");
        refused("[ingres]", "did you mean `ingress`?");
        refused("\n[deployments]\nlease = \"15 parsecs\"", "line 3");
        refused("\n[agents.a]\nlissten = \"x\"", "did you mean `listen`?");
        refused("[ingress]\nbase_domain = \"Apps.test:80\"", "base_domain");
        refused("[ingress]\nlistn = []", "unknown field `listn`");
        refused(
            "[adapters.x]\ncomponent = \"x\"\n[adapters.x.grants.g]\nagent = \"nowhere\"",
            "which [agents] does not have",
        );
        refused("[adapters.x]\ncomponent = \"x\"\n[adapters.x.grants.g]\n", "exactly one of");
        refused("[adapters.Bad_Name]\ncomponent = \"x\"", "only a-z, 0-9");
    }
}
