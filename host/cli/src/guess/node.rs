//! `package.json`: which script serves, and who installs.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::{Guess, read};
use crate::failure::Failure;

/// What counts of it (<https://docs.npmjs.com/cli/configuring-npm/package-json>).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Package {
    scripts: BTreeMap<String, String>,
    dependencies: BTreeMap<String, serde_json::Value>,
    dev_dependencies: BTreeMap<String, serde_json::Value>,
    package_manager: Option<String>,
    main: Option<String>,
}

impl Package {
    fn needs(&self, name: &str) -> bool {
        self.dependencies.contains_key(name) || self.dev_dependencies.contains_key(name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manager {
    Npm,
    Pnpm,
    Yarn,
    Bun,
}

impl Manager {
    fn program(self) -> &'static str {
        match self {
            Self::Npm => "npm",
            Self::Pnpm => "pnpm",
            Self::Yarn => "yarn",
            Self::Bun => "bun",
        }
    }

    /// npm hands a script only what follows `--`; the others hand on everything.
    fn script(self, name: &str, arguments: &str) -> String {
        let run = format!("{} run {name}", self.program());
        match (self, arguments) {
            (_, "") => run,
            (Self::Npm, arguments) => format!("{run} -- {arguments}"),
            (_, arguments) => format!("{run} {arguments}"),
        }
    }
}

/// Without a command where no script serves: then only what to install is known.
pub(super) fn guess(folder: &Path) -> Result<Option<Guess>, Failure> {
    let Some(text) = read(folder, "package.json")? else { return Ok(None) };
    let package: Package = serde_json::from_str(&text).map_err(|error| {
        Failure::usage(format!("package.json can't be read: {error}")).at(format!(
            "{}:{}",
            folder.join("package.json").display(),
            error.line()
        ))
    })?;
    let mut guess = Guess::new("package.json");
    let manager = install(folder, &package, &mut guess);
    serve(folder, &package, manager, &mut guess);
    Ok(Some(guess))
}

fn install(folder: &Path, package: &Package, guess: &mut Guess) -> Manager {
    let has = |name: &str| folder.join(name).is_file();
    let named = package.package_manager.as_deref().and_then(|text| text.split('@').next());
    let (manager, lock) = if has("pnpm-lock.yaml") {
        (Manager::Pnpm, Some("pnpm-lock.yaml"))
    } else if has("yarn.lock") {
        (Manager::Yarn, Some("yarn.lock"))
    } else if has("bun.lock") || has("bun.lockb") {
        (Manager::Bun, Some("bun's lock file"))
    } else if has("package-lock.json") || has("npm-shrinkwrap.json") {
        (Manager::Npm, Some("npm's lock file"))
    } else {
        let manager = match named {
            Some("pnpm") => Manager::Pnpm,
            Some("yarn") => Manager::Yarn,
            Some("bun") => Manager::Bun,
            _ => Manager::Npm,
        };
        (manager, None)
    };
    if package.dependencies.is_empty() && package.dev_dependencies.is_empty() {
        return manager;
    }
    match (manager, lock.is_some()) {
        (Manager::Npm, true) => guess.set_up(&["npm", "ci", "--no-audit", "--no-fund"]),
        (Manager::Npm, false) => guess.set_up(&["npm", "install", "--no-audit", "--no-fund"]),
        (Manager::Yarn, true) if has(".yarnrc.yml") => guess.set_up(&["yarn", "install", "--immutable"]),
        (manager, true) => guess.set_up(&[manager.program(), "install", "--frozen-lockfile"]),
        (manager, false) => guess.set_up(&[manager.program(), "install"]),
    }
    let program = manager.program();
    guess.because(match lock {
        Some(lock) => format!("{lock} says that {program} installs, and exactly what"),
        None => format!("{program} installs; there is no lock file, so versions may differ from yours"),
    });
    manager
}

fn serve(folder: &Path, package: &Package, manager: Manager, guess: &mut Guess) {
    let script = |name: &str| package.scripts.get(name).map(String::as_str);
    let is_vite = |name: &str| script(name).is_some_and(|text| package.needs("vite") && starts_vite(text));
    // A server of the project's own, made for production, before one for development.
    if let Some(start) = script("start").filter(|_| !is_vite("start")) {
        guess.because(format!("its `start` script is `{start}`; it has to listen on $PORT"));
        if script("build").is_some() && !start.contains("react-scripts") {
            let build = manager.script("build", "");
            guess.set_up(&build.split(' ').collect::<Vec<_>>());
            guess.because("its `build` script runs before");
        }
        let arguments = if start.trim() == "next start" { "-H 127.0.0.1 -p \"$PORT\"" } else { "" };
        return guess.exec(&manager.script("start", arguments));
    }
    for name in ["dev", "start"] {
        if is_vite(name) {
            guess.because(format!("its `{name}` script is Vite's development server, with hot reloading"));
            return guess.exec(&manager.script(name, "--host 127.0.0.1 --port \"$PORT\" --strictPort"));
        }
    }
    if let Some(dev) = script("dev") {
        guess.because(format!("its `dev` script is `{dev}`; it has to listen on $PORT"));
        let arguments = if dev.trim().starts_with("next dev") { "-H 127.0.0.1 -p \"$PORT\"" } else { "" };
        return guess.exec(&manager.script("dev", arguments));
    }
    let mut files: Vec<&str> = package.main.iter().map(String::as_str).collect();
    files.extend(["server.js", "server.mjs", "index.js", "index.mjs"]);
    let is_word = |file: &str| file.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
    match files
        .into_iter()
        .find(|file| is_word(file) && !file.starts_with('-') && folder.join(file).is_file())
    {
        Some(file) => {
            guess.because(format!(
                "it has no `start` or `dev` script, so {file} is run; it has to listen on $PORT"
            ));
            guess.run.command = Some(vec!["node".to_owned(), file.to_owned()]);
        }
        None => guess.because("package.json has no `start` or `dev` script"),
    }
}

/// `vite`, `vite dev`, `vite serve`, with options; not `vite build`, nor several commands.
fn starts_vite(script: &str) -> bool {
    if script.contains(['&', '|', ';']) {
        return false;
    }
    let mut words = script.split_whitespace();
    words.next() == Some("vite")
        && words.next().is_none_or(|word| word == "dev" || word == "serve" || word.starts_with('-'))
}
