//! The proxies that are compared, and how each is started.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use super::configs::{self, Task};
use super::load;
use super::process::{Allowed, Process, Start, free_port, local};
use super::setup::{self, Found, Tool};

/// The compared, in the order of the page.
pub const ALL: [Kind; 9] = [
    Kind::HytheT0,
    Kind::HytheT1,
    Kind::Nginx,
    Kind::Haproxy,
    Kind::Envoy,
    Kind::EnvoyWasm,
    Kind::Caddy,
    Kind::L4,
    Kind::RawHyper,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    HytheT0,
    HytheT1,
    Nginx,
    Haproxy,
    Envoy,
    EnvoyWasm,
    Caddy,
    L4,
    RawHyper,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::HytheT0 => "hythe-t0",
            Self::HytheT1 => "hythe-t1",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::EnvoyWasm => "envoy-wasm",
            Self::Caddy => "caddy",
            Self::L4 => "l4",
            Self::RawHyper => "raw-hyper",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether it knows of hosts at all.
    pub fn routes(self) -> bool {
        self != Self::L4
    }

    /// Whether it is one process of Rust, which a profiler can take as it is.
    pub fn is_one_process(self) -> bool {
        self.is_hythe() || matches!(self, Self::L4 | Self::RawHyper)
    }

    pub fn is_hythe(self) -> bool {
        matches!(self, Self::HytheT0 | Self::HytheT1)
    }
}

/// Hythe's own programs; the paths may not be there.
#[derive(Debug, Clone, clap::Args)]
pub struct Hythe {
    /// The program `stand`: ingress alone
    #[arg(long)]
    pub stand: PathBuf,
    /// The same with adapters that decide (T1)
    #[arg(long)]
    pub stand_t1: Option<PathBuf>,
    /// The adapter (component) that decides in T1
    #[arg(long)]
    pub adapter: Option<PathBuf>,
}

/// All that is needed to start any of them.
pub struct Yard {
    tools: Vec<(Kind, Found)>,
    hythe: Hythe,
    folder: PathBuf,
    upstream: u16,
    certificate: PathBuf,
    key: PathBuf,
    combined: PathBuf,
    filter: PathBuf,
    connections: usize,
    core: usize,
}

/// A proxy that serves.
#[derive(Debug)]
pub struct Running {
    pub kind: Kind,
    pub routes: usize,
    pub process: Process,
    pub plain: SocketAddr,
    pub secure: Result<SocketAddr, String>,
    pub took: Duration,
}

impl Yard {
    /// Gets the tools of `wanted`, and makes key and certificate in `folder`.
    ///
    /// # Errors
    /// Where files can't be written. A tool that can't be had is no error.
    pub fn new(
        wanted: &[Kind],
        peers: &Path,
        folder: &Path,
        hythe: Hythe,
        upstream: u16,
        connections: usize,
        core: usize,
    ) -> anyhow::Result<Self> {
        fs::create_dir_all(peers).with_context(|| format!("can't make {}", peers.display()))?;
        let peers = &std::path::absolute(peers)?;
        let adapter = hythe.adapter.as_ref().map(std::path::absolute).transpose()?;
        let hythe = Hythe { adapter, ..hythe };
        let own = || -> Found {
            let program = std::env::current_exe().map_err(|error| error.to_string())?;
            let version = env!("CARGO_PKG_VERSION").to_owned();
            Ok(Tool { program, environment: Vec::new(), version })
        };
        let built = |program: Option<&PathBuf>, what: &str| -> Found {
            let program = program.filter(|program| program.is_file());
            let program = program.ok_or_else(|| format!("{what} is not there: it was not built"))?;
            // It is started in a folder of its own.
            let program = std::path::absolute(program).map_err(|error| error.to_string())?;
            let version = env!("CARGO_PKG_VERSION").to_owned();
            Ok(Tool { program, environment: Vec::new(), version })
        };
        let tools = wanted
            .iter()
            .map(|&kind| {
                let found = match kind {
                    Kind::HytheT0 => built(Some(&hythe.stand), "the program `stand`"),
                    Kind::HytheT1 => built(hythe.adapter.as_ref(), "an adapter that decides (T1)")
                        .and_then(|_| built(hythe.stand_t1.as_ref(), "a stand that asks an adapter (T1)")),
                    Kind::Nginx => setup::nginx(peers),
                    Kind::Haproxy => setup::haproxy(peers),
                    Kind::Envoy | Kind::EnvoyWasm => setup::envoy(peers),
                    Kind::Caddy => setup::caddy(peers),
                    Kind::L4 | Kind::RawHyper => own(),
                };
                (kind, found)
            })
            .collect();
        let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
        let (combined, filter) = (folder.join("combined.pem"), folder.join("filter.wasm"));
        let made = rcgen::generate_simple_self_signed(vec!["bench.localhost".to_owned()])?;
        fs::write(&certificate, made.cert.pem())?;
        fs::write(&key, made.signing_key.serialize_pem())?;
        fs::write(&combined, format!("{}{}", made.cert.pem(), made.signing_key.serialize_pem()))?;
        fs::write(&filter, wat::parse_str(include_str!("filter.wat"))?)?;
        let folder = folder.to_owned();
        Ok(Self { tools, hythe, folder, upstream, certificate, key, combined, filter, connections, core })
    }

    /// Where the proxies run.
    pub fn core(&self) -> usize {
        self.core
    }

    /// The tool, or why there is none.
    pub fn tool(&self, kind: Kind) -> Result<&Tool, &str> {
        let found = self.tools.iter().find(|(of, _)| *of == kind).map(|(_, found)| found.as_ref());
        match found {
            Some(Ok(tool)) => Ok(tool),
            Some(Err(reason)) => Err(reason),
            None => Err("it was not asked for"),
        }
    }

    /// Starts a proxy with so many routes and waits until it serves the first and the last of them.
    ///
    /// # Errors
    /// Why it does not.
    pub fn start(&self, kind: Kind, routes: usize, allowed: Allowed) -> anyhow::Result<Running> {
        let wants_tls = kind.is_hythe();
        match self.start_as(kind, routes, allowed, true) {
            // A stand from before TLS.
            Err(error) if wants_tls && error.to_string().contains("unknown field `certificates`") => {
                let mut running = self.start_as(kind, routes, allowed, false)?;
                running.secure = Err("this stand knows no TLS".to_owned());
                Ok(running)
            }
            other => other,
        }
    }

    fn start_as(&self, kind: Kind, routes: usize, allowed: Allowed, tls: bool) -> anyhow::Result<Running> {
        let tool = self.tool(kind).map_err(|reason| anyhow::anyhow!("{reason}"))?;
        let (port, tls_port) = (free_port()?, free_port()?);
        let folder = self.folder.join(format!("{}-{port}", kind.name()));
        fs::create_dir_all(&folder)?;
        let start = start_of(kind, tool, &self.task(kind, routes, port, tls_port, &folder), tls, self)?;
        let mut process = Process::start(&start, self.core)?;
        let plain = local(port);
        let took = process.wait(allowed, |_| {
            load::ask(plain, 0, Duration::from_secs(5)).is_ok()
                && (routes == 1 || load::ask(plain, routes - 1, Duration::from_secs(5)).is_ok())
        })?;
        let secure = match kind {
            Kind::L4 => Err("it knows no TLS".to_owned()),
            _ => Ok(local(tls_port)),
        };
        Ok(Running { kind, routes, process, plain, secure, took })
    }

    /// How a proxy with so many routes is started under another program (a profiler), and where it listens.
    ///
    /// # Errors
    /// Where its configuration can't be written.
    pub fn under(
        &self,
        wrapper: &Tool,
        kind: Kind,
        mut arguments: Vec<String>,
        routes: usize,
    ) -> anyhow::Result<(Start, SocketAddr)> {
        let tool = self.tool(kind).map_err(|reason| anyhow::anyhow!("{reason}"))?;
        let (port, tls_port) = (free_port()?, free_port()?);
        let folder = self.folder.join(format!("profiled-{port}"));
        fs::create_dir_all(&folder)?;
        let mut start = start_of(kind, tool, &self.task(kind, routes, port, tls_port, &folder), false, self)?;
        let own = std::mem::replace(&mut start.program, wrapper.program.clone());
        arguments.push(own.display().to_string());
        arguments.append(&mut start.arguments);
        start.arguments = arguments;
        Ok((start, local(port)))
    }

    fn task<'a>(&'a self, kind: Kind, routes: usize, port: u16, tls_port: u16, folder: &'a Path) -> Task<'a> {
        Task {
            port,
            tls_port,
            upstream: self.upstream,
            routes,
            certificate: &self.certificate,
            key: &self.key,
            combined: &self.combined,
            folder,
            connections: self.connections,
            filter: (kind == Kind::EnvoyWasm).then_some(self.filter.as_path()),
        }
    }
}

fn start_of(kind: Kind, tool: &Tool, task: &Task<'_>, tls: bool, yard: &Yard) -> anyhow::Result<Start> {
    let adapter = yard.hythe.adapter.as_deref();
    let folder = task.folder;
    let write = |name: &str, text: String| -> anyhow::Result<String> {
        let file = folder.join(name);
        fs::write(&file, text).with_context(|| format!("can't write {}", file.display()))?;
        Ok(file.display().to_string())
    };
    // Not pretty: with a million routes every space counts.
    let json = |name: &str, value: &Value| write(name, value.to_string());
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let mut environment = tool.environment.clone();
    let arguments = match kind {
        Kind::HytheT0 => vec![json("stand.json", &configs::stand(task, tls, None))?],
        Kind::HytheT1 => vec![json("stand.json", &configs::stand(task, tls, adapter))?],
        Kind::Nginx => {
            let config = write("nginx.conf", configs::nginx(task))?;
            let errors = folder.join("error.log").display().to_string();
            words(&["-p", &folder.display().to_string(), "-c", &config, "-e", &errors])
        }
        Kind::Haproxy => {
            let (config, map) = configs::haproxy(task);
            write("hosts.map", map)?;
            words(&["-db", "-f", &write("haproxy.cfg", config)?])
        }
        Kind::Envoy | Kind::EnvoyWasm => {
            let config = json("envoy.json", &configs::envoy(task))?;
            words(&["-c", &config, "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"])
        }
        Kind::Caddy => {
            for (name, part) in [("HOME", ""), ("XDG_CONFIG_HOME", "config"), ("XDG_DATA_HOME", "data")] {
                environment.push((name.to_owned(), folder.join(part).display().to_string()));
            }
            words(&["run", "--config", &json("caddy.json", &configs::caddy(task))?])
        }
        Kind::L4 => words(&["l4", &task.port.to_string(), &task.upstream.to_string()]),
        Kind::RawHyper => {
            let (port, tls_port) = (task.port.to_string(), task.tls_port.to_string());
            let (upstream, routes) = (task.upstream.to_string(), task.routes.to_string());
            let (certificate, key) = (task.certificate.display().to_string(), task.key.display().to_string());
            words(&[
                "raw-hyper",
                "--port",
                &port,
                "--tls-port",
                &tls_port,
                "--upstream",
                &upstream,
                "--routes",
                &routes,
                "--certificate",
                &certificate,
                "--key",
                &key,
            ])
        }
    };
    Ok(Start { program: tool.program.clone(), arguments, environment, folder: folder.to_owned() })
}
