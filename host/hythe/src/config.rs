//! The operator's configuration, parsed and checked whole before anything binds.
//!
//! Authoritative for listeners, adapters, grants and daemons. Unknown keys are errors that name the key,
//! its line and the nearest right one.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use model::RuntimeType;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

const DEFAULTS: &str = include_str!("default.toml");

/// All of it.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(default)]
    pub database: Database,
    pub ingress: Ingress,
    #[serde(default)]
    pub tls: Tls,
    #[serde(default)]
    pub upgrade: Upgrade,
    pub api: Api,
    #[serde(default)]
    pub deployments: Deployments,
    #[serde(default)]
    pub agents: BTreeMap<String, LocalAgent>,
    pub adapters: BTreeMap<RuntimeType, Adapter>,
}

/// `[database]`
#[derive(Debug, Clone, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// `postgres://…`; none: a private cluster in the data directory. `DATABASE_URL` comes before it.
    pub url: Option<String>,
    /// Folder with `postgres` and `initdb`, for the private cluster.
    pub binaries: Option<PathBuf>,
}

/// `[ingress]`
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Ingress {
    pub listen: Vec<Listen>,
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
    /// Addresses and blocks (`10.0.0.0/8`) of proxies whose forwarding headers are believed.
    #[serde(default)]
    pub trusted_proxies: Vec<String>,
    /// The share of requests that the access log has: from 0, none, to 1, all.
    #[serde(default)]
    pub access_log: Share,
    #[serde(default)]
    pub limits: IngressLimits,
}

/// From 0 to 1.
#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq)]
#[serde(try_from = "f64")]
pub struct Share(f64);

// What is read is never NaN.
impl Eq for Share {}

impl Share {
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Share {
    type Error = String;

    fn try_from(share: f64) -> Result<Self, String> {
        if (0.0..=1.0).contains(&share) {
            Ok(Self(share))
        } else {
            Err(format!("{share} is no share: give a number from 0 to 1"))
        }
    }
}

/// `[ingress.limits]`: what clients may do. Each is explained at the field of its name of
/// [`ingress::IngressConfig`], which has the default.
#[derive(Debug, Clone, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct IngressLimits {
    #[serde(with = "humantime_serde")]
    pub header_timeout: Option<Duration>,
    #[serde(with = "humantime_serde")]
    pub body_timeout: Option<Duration>,
    #[serde(with = "humantime_serde")]
    pub write_timeout: Option<Duration>,
    #[serde(with = "humantime_serde")]
    pub response_timeout: Option<Duration>,
    #[serde(with = "humantime_serde")]
    pub keep_alive_timeout: Option<Duration>,
    #[serde(with = "humantime_serde")]
    pub upgrade_timeout: Option<Duration>,
    pub max_header_bytes: Option<usize>,
    /// Of one worker.
    pub max_connections: Option<usize>,
    /// Of one worker.
    pub max_requests: Option<usize>,
    pub max_deployment_requests: Option<usize>,
    pub max_streams: Option<u32>,
    /// Bytes a second.
    pub least_rate: Option<u32>,
    #[serde(with = "humantime_serde")]
    pub overload_delay: Option<Duration>,
}

/// `[upgrade]`: another process in this one's place.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Upgrade {
    /// How long the new process may take until it serves; then it is ended, and the old one goes on.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl Default for Upgrade {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(60) }
    }
}

/// One of `ingress.listen`: an address alone, or a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    pub address: SocketAddr,
    /// Whether it speaks TLS, with the certificates of `[tls]`.
    pub tls: bool,
    /// Whether each connection begins with a header of the PROXY protocol, version 2.
    pub proxy_protocol: bool,
    /// Where it does not speak TLS: the port of the one that does, as clients reach it. Requests are sent there.
    pub redirect_to_https: Option<u16>,
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            address: SocketAddr,
            #[serde(default)]
            tls: bool,
            #[serde(default)]
            proxy_protocol: bool,
            redirect_to_https: Option<u16>,
        }

        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Listen;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "an address such as \"127.0.0.1:8080\", or { address = \"127.0.0.1:8443\", tls = true }",
                )
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Listen, E> {
                let address = text
                    .parse()
                    .map_err(|_| E::custom(format!("{text:?} is no address such as \"127.0.0.1:8080\"")))?;
                Ok(Listen { address, tls: false, proxy_protocol: false, redirect_to_https: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Listen, A::Error> {
                let Table { address, tls, proxy_protocol, redirect_to_https } =
                    Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Listen { address, tls, proxy_protocol, redirect_to_https })
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// `[tls]`: for those of `ingress.listen` that say `tls = true`.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Each answers the names that it has.
    pub certificates: Vec<Certificate>,
    /// Whether a CA of the host's own answers for `localhost`, the base domain and all below them, where no
    /// certificate does. None: where there are no certificates.
    pub development: Option<bool>,
    /// How often the files are looked at for changes.
    #[serde(with = "humantime_serde")]
    pub watch_every: Duration,
}

impl Default for Tls {
    fn default() -> Self {
        Self { certificates: Vec::new(), development: None, watch_every: Duration::from_secs(5) }
    }
}

impl Tls {
    /// Whether the development CA answers.
    pub fn development(&self) -> bool {
        self.development.unwrap_or(self.certificates.is_empty())
    }
}

/// `[[tls.certificates]]`
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// PEM: the certificate, then those of the authorities between it and the root.
    pub certificate: PathBuf,
    /// PEM, without a passphrase.
    pub key: PathBuf,
    /// Whether it answers names that no certificate has, and clients that name none. At most one.
    #[serde(default)]
    pub default: bool,
}

/// `[api]`
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Api {
    pub listen: SocketAddr,
}

/// `[deployments]`
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
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
#[derive(Debug, Clone, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct LocalAgent {
    /// None: a free port of 127.0.0.1.
    pub listen: Option<SocketAddr>,
    /// `auto` (an unprivileged user of each workload's own, where the host is root), `none`, or a name.
    pub workload_user: Option<String>,
}

/// `[adapters.<runtime type>]`
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
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
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
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
        self.check_listeners()?;
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

impl Config {
    fn check_listeners(&self) -> anyhow::Result<()> {
        let listen = &self.ingress.listen;
        for (number, one) in listen.iter().enumerate() {
            let address = one.address;
            if address.port() != 0 && listen[..number].iter().any(|other| other.address == address) {
                bail!("ingress.listen names {address} twice: keep one");
            }
            if one.tls && one.redirect_to_https.is_some() {
                bail!(
                    "ingress.listen {address} has both tls and redirect_to_https: it speaks TLS, or it sends there"
                );
            }
            if one.redirect_to_https == Some(0) {
                bail!(
                    "ingress.listen {address}: redirect_to_https is the port that clients reach, such as 443"
                );
            }
        }
        if self.tls.watch_every.is_zero() {
            bail!("tls.watch_every must be longer than nothing, such as \"5s\"");
        }
        if self.has_tls() && self.tls.certificates.is_empty() && !self.tls.development() {
            bail!(
                "ingress.listen speaks TLS, but [tls] has neither certificates nor `development = true`: give it one"
            );
        }
        if self.tls.certificates.iter().filter(|certificate| certificate.default).count() > 1 {
            bail!("more than one of [[tls.certificates]] is marked `default`: keep one");
        }
        ingress::TrustedProxies::parse(&self.ingress.trusted_proxies).context("ingress.trusted_proxies")?;
        Ok(())
    }

    /// Whether any listener speaks TLS.
    pub fn has_tls(&self) -> bool {
        self.ingress.listen.iter().any(|listen| listen.tls)
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
    ingress: Option<OperatorIngress>,
    tls: Option<Tls>,
    upgrade: Option<Upgrade>,
    api: Option<toml::Table>,
    deployments: Option<Deployments>,
    agents: Option<BTreeMap<String, LocalAgent>>,
    adapters: Option<BTreeMap<RuntimeType, Adapter>>,
}

/// As [`Ingress`], each key optional.
#[derive(Deserialize)]
#[expect(dead_code, reason = "read for its errors")]
struct OperatorIngress {
    listen: Option<Vec<Listen>>,
    limits: Option<IngressLimits>,
    #[serde(flatten)]
    rest: toml::Table,
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
        assert_eq!(config.ingress.listen.len(), 2);
        assert_eq!(config.adapters.len(), 1);
    }

    #[test]
    fn listeners_are_addresses_or_tables() {
        let listen = |text: &str| Config::parse(text, "host.toml").unwrap().ingress.listen;
        let [plain, tls] = <[Listen; 2]>::try_from(Config::load(None).unwrap().ingress.listen).unwrap();
        assert!(!plain.tls && tls.tls);
        let old = listen("[ingress]\nlisten = [\"127.0.0.1:1\", \"[::1]:1\"]");
        assert!(old.iter().all(|listen| !listen.tls && !listen.proxy_protocol));
        let new = listen(
            "[[ingress.listen]]\naddress = \"0.0.0.0:80\"\nredirect_to_https = 443\n\
             [[ingress.listen]]\naddress = \"0.0.0.0:443\"\ntls = true\nproxy_protocol = true",
        );
        assert_eq!(new[0].redirect_to_https, Some(443));
        assert!(new[1].tls && new[1].proxy_protocol);
    }

    #[test]
    fn the_development_ca_gives_way_to_certificates() {
        let certificate = "[[tls.certificates]]\ncertificate = \"a.pem\"\nkey = \"b.pem\"\n";
        for (text, development) in [
            (String::new(), true),
            (certificate.to_owned(), false),
            (format!("[tls]\ndevelopment = true\n{certificate}"), true),
        ] {
            assert_eq!(Config::parse(&text, "host.toml").unwrap().tls.development(), development, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_tls_is_named() {
        refused("[ingress]\nlisten = [\"nowhere\"]", "line 2: \"nowhere\" is no address");
        refused("[ingress]\nlisten = [7]", "an address such as");
        refused("[[ingress.listen]]\naddress = \"127.0.0.1:1\"\ntsl = true", "did you mean `tls`?");
        refused("[[ingress.listen]]\ntls = true", "missing field `address`");
        refused("[ingress]\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:1\"]", "127.0.0.1:1 twice");
        refused(
            "[[ingress.listen]]\naddress = \"127.0.0.1:1\"\ntls = true\nredirect_to_https = 443",
            "both tls and redirect_to_https",
        );
        refused("[tls]\ndevelopment = false", "neither certificates nor");
        refused("[tls]\ncertificate = \"a\"", "did you mean `certificates`?");
        refused("[[tls.certificates]]\ncertificate = \"a\"", "missing field `key`");
        refused("[ingress.limits]\nheader_timout = \"1s\"", "did you mean `header_timeout`?");
        refused("[tls]\nwatch_every = \"0s\"", "longer than nothing");
        let two = "[[tls.certificates]]\ncertificate = \"a\"\nkey = \"a\"\ndefault = true\n".repeat(2);
        refused(&two, "marked `default`");
        refused("[ingress]\ntrusted_proxies = [\"all\"]", "no address or block of trusted proxies");
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
