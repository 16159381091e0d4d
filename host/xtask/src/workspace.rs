//! What cargo says of the workspace: its crates, their features and what they depend on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::command::Command;

/// The workspace as `cargo metadata --no-deps` tells it.
#[derive(Debug, Deserialize)]
pub struct Workspace {
    pub packages: Vec<Package>,
}

/// A crate of the workspace.
#[derive(Debug, Deserialize)]
pub struct Package {
    pub name: String,
    pub manifest_path: PathBuf,
    #[serde(default)]
    pub dependencies: Vec<Dependency>,
    #[serde(default)]
    pub features: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    pub targets: Vec<Target>,
}

/// What a crate asks for.
#[derive(Debug, Deserialize)]
pub struct Dependency {
    pub name: String,
    /// None for ordinary ones, `dev` or `build`.
    pub kind: Option<String>,
}

/// What cargo builds of a crate.
#[derive(Debug, Deserialize)]
pub struct Target {
    pub kind: Vec<String>,
}

impl Workspace {
    /// Asks cargo.
    ///
    /// # Errors
    /// Where cargo can't be run or a manifest is wrong; cargo says which.
    pub fn load() -> Result<Self> {
        let text =
            Command::cargo("metadata").args(["--no-deps", "--format-version=1", "--offline"]).output()?;
        serde_json::from_str(&text).context("cargo metadata's answer can't be read")
    }

    /// Names of the crates that are components, by the folder they live in (`adapters` or `guests`).
    pub fn components(&self, folder: &'static str) -> impl Iterator<Item = &str> {
        self.packages
            .iter()
            .filter(move |package| package.is_component() && package.folder() == Some(folder))
            .map(|package| package.name.as_str())
    }

    /// Names of all crates that are components.
    pub fn all_components(&self) -> Vec<&str> {
        self.components("adapters").chain(self.components("guests")).collect()
    }

    /// `crate/feature` for each of the crates that has the feature, joined by commas; empty for none.
    pub fn with_feature(&self, crates: &[&str], feature: &str) -> Vec<String> {
        self.packages
            .iter()
            .filter(|package| {
                crates.contains(&package.name.as_str()) && package.features.contains_key(feature)
            })
            .map(|package| format!("{}/{feature}", package.name))
            .collect()
    }
}

impl Package {
    /// Whether it is built for `wasm32-wasip2`, as a dynamic library and nothing else.
    pub fn is_component(&self) -> bool {
        !self.targets.is_empty()
            && self.targets.iter().any(|target| target.kind.iter().any(|kind| kind == "cdylib"))
    }

    /// The top-level folder that it lives in.
    pub fn folder(&self) -> Option<&str> {
        self.manifest_path.parent()?.parent()?.file_name()?.to_str()
    }
}

/// The repository's root.
pub fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        here.ancestors().nth(2).unwrap_or(here).to_path_buf()
    })
}

/// Where cargo puts what it builds.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root().join(folder),
        None => root().join("target"),
    }
}
