//! From `[tls]` to certificates that are served, watched and measured; and `hythe trust`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use serve::tls::{CertificateFiles, DevelopmentCa, Tls, TlsSettings, TrustCommands};
use telemetry::Metrics;
use tokio::task::JoinHandle;

use crate::config::{self, Config};
use crate::data_dir::DataDir;

/// The development CA's folder in the data directory.
const FOLDER: &str = "dev-ca";

/// Certificates that are served while this is held.
pub struct Certificates {
    tls: Arc<Tls>,
    changing: Mutex<Changing>,
}

struct Changing {
    settings: config::Tls,
    development: Option<Arc<DevelopmentCa>>,
    watcher: JoinHandle<()>,
}

impl Certificates {
    /// Of the configuration; `None` where no listener speaks TLS.
    ///
    /// # Errors
    /// The first certificate that can't be used; or where the development CA can't be made.
    pub fn start(config: &Config, data_dir: &DataDir, metrics: &Metrics) -> anyhow::Result<Option<Self>> {
        if !config.has_tls() {
            return Ok(None);
        }
        let development = development(config, data_dir)?;
        let tls = Tls::new(settings(&config.tls, development.clone())).context("[tls]")?;
        metrics.register_collector(Box::new(Ends(tls.clone())));
        let watcher = tokio::spawn(tls.clone().watch(config.tls.watch_every));
        let changing = Mutex::new(Changing { settings: config.tls.clone(), development, watcher });
        Ok(Some(Self { tls, changing }))
    }

    /// For listeners.
    pub fn tls(&self) -> Arc<Tls> {
        self.tls.clone()
    }

    /// Takes the configuration's `[tls]`, or, where that is the same, reads all files again.
    ///
    /// # Errors
    /// The first certificate that can't be used and has no predecessor: nothing is changed then.
    pub fn reload(&self, config: &Config, data_dir: &DataDir) -> anyhow::Result<()> {
        let mut changing = self.changing.lock();
        let development = match &changing.development {
            Some(known) if config.tls.development() => Some(known.clone()),
            _ => development(config, data_dir)?,
        };
        self.tls.replace(settings(&config.tls, development.clone())).context("[tls]")?.log();
        changing.development = development;
        if changing.settings.watch_every != config.tls.watch_every {
            changing.watcher.abort();
            changing.watcher = tokio::spawn(self.tls.clone().watch(config.tls.watch_every));
        }
        changing.settings = config.tls.clone();
        Ok(())
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        self.changing.lock().watcher.abort();
    }
}

fn development(config: &Config, data_dir: &DataDir) -> anyhow::Result<Option<Arc<DevelopmentCa>>> {
    if !config.tls.development() {
        return Ok(None);
    }
    // Everybody may read the certificate: that is what it is for.
    let folder = data_dir.folder(FOLDER, false)?;
    let ca = DevelopmentCa::open(&folder, std::slice::from_ref(&config.ingress.base_domain))?;
    if ca.is_new() {
        let path = ca.path().display();
        tracing::warn!(%path, "made a development CA: `hythe trust` tells how to trust it");
    }
    Ok(Some(Arc::new(ca)))
}

fn settings(tls: &config::Tls, development: Option<Arc<DevelopmentCa>>) -> TlsSettings {
    let files = |certificate: &config::Certificate| CertificateFiles {
        certificate: certificate.certificate.clone(),
        key: certificate.key.clone(),
        default: certificate.default,
    };
    TlsSettings {
        certificates: tls.certificates.iter().map(files).collect(),
        development,
        ..TlsSettings::default()
    }
}

/// When each certificate ends.
#[derive(Debug)]
struct Ends(Arc<Tls>);

impl Collector for Ends {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let certificates = self.0.certificates();
        if certificates.is_empty() {
            return Ok(());
        }
        let mut family = encoder.encode_descriptor(
            "tls_certificate_not_after_seconds",
            "When the certificate that is served expires, in seconds since 1970",
            None,
            MetricType::Gauge,
        )?;
        for certificate in certificates {
            let file = certificate.path().unwrap_or(Path::new("")).display().to_string();
            let labels = [("file", file)];
            ConstGauge::new(certificate.not_after().timestamp()).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// `hythe trust`
#[derive(Debug, Clone, Args)]
pub struct TrustArguments {
    /// The data directory of the host on this machine.
    #[arg(long, env = "HYTHE_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Print only the path of the CA's certificate.
    #[arg(long)]
    path: bool,
    /// Print how to take the trust back.
    #[arg(long, conflicts_with = "path")]
    undo: bool,
}

/// Prints how programs of this machine come to trust the development CA.
///
/// # Errors
/// Where no host made one in this data directory.
pub fn trust(arguments: &TrustArguments) -> anyhow::Result<ExitCode> {
    let data_dir = arguments.data_dir.clone().unwrap_or_else(DataDir::default_path);
    let ca = data_dir.join(FOLDER).join("ca.pem");
    if !ca.is_file() {
        bail!(
            "there is no development CA in {}: start a host with a TLS listener (`hythe up` has one), or name its data \
             directory with --data-dir",
            data_dir.display()
        );
    }
    if arguments.path {
        anstream::println!("{}", ca.display());
        return Ok(ExitCode::SUCCESS);
    }
    anstream::println!("The development CA of this host: {}", ca.display());
    anstream::println!("It can sign for loopback addresses and this host's own names, and for nothing else.");
    for commands in TrustCommands::all(&ca) {
        anstream::println!("\n{}", commands.title);
        for line in if arguments.undo { &commands.distrust } else { &commands.trust } {
            anstream::println!("  {line}");
        }
    }
    if !arguments.undo {
        anstream::println!("\nOne request, without trusting it: curl --cacert {} https://…", ca.display());
    }
    Ok(ExitCode::SUCCESS)
}
