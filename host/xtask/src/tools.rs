//! Programs that the tests need beside the Rust toolchain: found, installed where that asks no
//! question (Debian, as root), or an error that says what to type.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::command::Command;

/// The lowest Node.js that Vite runs on: 20.19 (its package's `engines`).
const NODE: (u32, u32) = (20, 19);

/// The lowest Python that the suites of ingress are written for.
const PYTHON: (u32, u32) = (3, 11);

/// What the browser test runs.
#[derive(Debug)]
pub struct BrowserTools {
    pub node: PathBuf,
    pub npm: PathBuf,
    pub chromium: PathBuf,
}

/// Finds or installs Node.js, npm and Chromium.
///
/// # Errors
/// Each that is missing, and what to type.
pub fn browser_tools() -> Result<BrowserTools> {
    Ok(BrowserTools {
        node: node()?,
        npm: find_or_install("npm", &["npm"], &["npm"])?,
        chromium: chromium()?,
    })
}

/// Python 3.11 or later, for the suites of ingress.
///
/// # Errors
/// Where there is none, and what to type.
pub fn python() -> Result<PathBuf> {
    let python = find_or_install("Python 3", &["python3"], &["python3", "python3-venv"])?;
    let version =
        Command::new(&python).args(["-c", "import sys; print('v%d.%d' % sys.version_info[:2])"]).output()?;
    if !is_at_least(version.trim(), PYTHON) {
        bail!(
            "{} is Python {}, and the suites of ingress need {}.{} or later: put one first in PATH, or leave them out \
             with `./x test --without matrix,clients,grpc`",
            python.display(),
            version.trim(),
            PYTHON.0,
            PYTHON.1
        );
    }
    Ok(python)
}

/// Whether `cargo nextest` is there.
pub fn has_nextest() -> bool {
    find("cargo-nextest").is_some()
}

/// Whether `cargo deny` is there.
pub fn has_deny() -> bool {
    find("cargo-deny").is_some()
}

fn node() -> Result<PathBuf> {
    let node = find_or_install("Node.js", &["node"], &["nodejs", "npm"])?;
    let version = Command::new(&node).arg("--version").output()?;
    if !is_at_least(version.trim(), NODE) {
        bail!(
            "{} is Node.js {}, and Vite needs {}.{} or later: install one (https://nodejs.org) and put it first in \
             PATH, or leave this test out with `./x test --without browser`",
            node.display(),
            version.trim(),
            NODE.0,
            NODE.1
        );
    }
    Ok(node)
}

/// Where `CHROMIUM` is set, that; else what is in PATH.
fn chromium() -> Result<PathBuf> {
    const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    const MACOS: &str = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome";
    if let Some(path) = std::env::var_os("CHROMIUM") {
        let path = PathBuf::from(path);
        if !path.is_file() {
            bail!(
                "CHROMIUM is {}, and there is no such file: set it to the browser's program",
                path.display()
            );
        }
        return Ok(path);
    }
    if Path::new(MACOS).is_file() {
        return Ok(MACOS.into());
    }
    find_or_install("Chromium", &NAMES, &["chromium"])
}

/// The first of the names that is in PATH; otherwise Debian's packages are installed.
fn find_or_install(what: &str, names: &[&str], packages: &[&str]) -> Result<PathBuf> {
    let present = || names.iter().find_map(|name| find(name));
    if let Some(path) = present() {
        return Ok(path);
    }
    if find("apt-get").is_some() && is_root() {
        eprintln!("x: installing {} (apt-get)", packages.join(" "));
        Command::new("apt-get").args(["update", "-qq"]).output()?;
        Command::new("apt-get")
            .args(["install", "-y", "-qq", "--no-install-recommends"])
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .output()?;
        if let Some(path) = present() {
            return Ok(path);
        }
    }
    bail!(
        "this test needs {what}, and {} is not in PATH: type `{}`, or leave it out with `./x test --without` and its \
         name",
        names.join(" or "),
        how_to(packages)
    )
}

fn how_to(packages: &[&str]) -> String {
    let packages = packages.join(" ");
    if find("apt-get").is_some() {
        format!("sudo apt-get install -y {packages}")
    } else if find("dnf").is_some() {
        format!("sudo dnf install -y {packages}")
    } else if find("brew").is_some() {
        format!("brew install {}", packages.replace("nodejs npm", "node"))
    } else {
        format!("install {packages} (Debian's names) with this system's package manager")
    }
}

/// A program's path, as a shell finds it.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|uid| uid.trim() == "0")
}

/// Whether `v20.20.2` is at least (20, 19).
fn is_at_least(version: &str, lowest: (u32, u32)) -> bool {
    let mut parts = version.trim_start_matches('v').split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let (major, minor) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    (major, minor) >= lowest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(is_at_least("v20.19.0", NODE));
        assert!(is_at_least("v22.2.0", NODE));
        assert!(!is_at_least("v20.9.0", NODE));
        assert!(!is_at_least("v18.20.4", NODE));
        assert!(!is_at_least("what", NODE));
    }
}
