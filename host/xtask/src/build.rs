//! Builds what runs: the programs, the components, and the sample project as one would deploy it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command::Command;
use crate::workspace::{Workspace, root, target};

/// Crates that are programs to run.
const PROGRAMS: [&str; 3] = ["hythe", "hythe-agent", "harbour"];
/// Switches on the points at which tests make the programs fail.
const FAIL_POINTS: &str = "failpoints";

/// All crates that run on this machine, with the features that tests use.
///
/// Every build names the same crates, also one for the programs alone: cargo switches a library's features
/// on by what the named crates ask of it, and another selection would compile libraries a second time.
pub fn on_host(command: Command, workspace: &Workspace) -> Command {
    let mut features = workspace.with_feature(&PROGRAMS, FAIL_POINTS);
    features.extend(workspace.with_feature(&["xtask"], "database"));
    command.arg("--workspace").each("--exclude", workspace.all_components()).features(&features)
}

/// Programs, components and sample project.
///
/// # Errors
/// Where something does not compile; cargo says what.
pub fn everything() -> Result<()> {
    let workspace = Workspace::load()?;
    on_host(Command::cargo("build"), &workspace).each("--bin", PROGRAMS).run()?;
    build_components(&workspace)?;
    stage_sample()?;
    Ok(())
}

/// The components alone, into `target/adapters/<name>.wasm`.
///
/// # Errors
/// As [`everything`].
pub fn components() -> Result<()> {
    build_components(&Workspace::load()?)
}

/// Builds everything, then becomes `hythe up` with the arguments.
///
/// # Errors
/// As [`everything`].
pub fn up(arguments: Vec<String>) -> Result<()> {
    everything()?;
    Command::new(program("hythe")).arg("up").arg("--sample").arg(sample()).args(arguments).exec()
}

/// The path of a program that [`everything`] builds.
pub fn program(name: &str) -> PathBuf {
    target().join("debug").join(name)
}

/// Where the components are.
pub fn adapters() -> PathBuf {
    target().join("adapters")
}

/// The sample project, as a person would have it in a folder.
pub fn sample() -> PathBuf {
    target().join("sample/harbour")
}

fn build_components(workspace: &Workspace) -> Result<()> {
    let components = workspace.all_components();
    if components.is_empty() {
        bail!(
            "no crate under adapters/ is a component (crate-type cdylib): there would be nothing to run deployments"
        );
    }
    Command::cargo("build")
        .args(["--profile", "component", "--target", "wasm32-wasip2"])
        .each("-p", components.iter().copied())
        .run()?;
    let built = target().join("wasm32-wasip2/component");
    for name in components {
        let file = built.join(name.replace('-', "_")).with_extension("wasm");
        copy_if_changed(&file, &adapters().join(name).with_extension("wasm"))?;
    }
    Ok(())
}

/// Lays the sample project out: its own files, and its program beside them.
fn stage_sample() -> Result<()> {
    let source = root().join("guests/harbour");
    copy_if_changed(&program("harbour"), &sample().join("harbour"))?;
    copy_if_changed(&source.join("hythe.toml"), &sample().join("hythe.toml"))?;
    let (from, to) = (source.join("public"), sample().join("public"));
    for name in names_in(&to)? {
        if !from.join(&name).exists() {
            std::fs::remove_file(to.join(&name))
                .with_context(|| format!("can't remove {}", to.join(&name).display()))?;
        }
    }
    for name in names_in(&from)? {
        copy_if_changed(&from.join(&name), &to.join(&name))?;
    }
    Ok(())
}

/// Names of the files in a folder; none where there is no folder.
pub fn names_in(folder: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(error).with_context(|| format!("can't read the folder {}", folder.display()));
        }
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("can't read the folder {}", folder.display()))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Copies a file, whole or not at all, unless the copy has the same bytes: who watches it by its time
/// of change or keeps a compiled form of it is not disturbed. Says whether it copied.
///
/// # Errors
/// Where the file can't be read or the copy not written.
pub fn copy_if_changed(from: &Path, to: &Path) -> Result<bool> {
    let bytes = std::fs::read(from).with_context(|| format!("can't read {}", from.display()))?;
    if std::fs::read(to).is_ok_and(|present| present == bytes) {
        return Ok(false);
    }
    let failed = || format!("can't write {}", to.display());
    let folder = to.parent().with_context(failed)?;
    std::fs::create_dir_all(folder).with_context(failed)?;
    let part = folder.join(format!(".{}.part", to.file_name().unwrap_or_default().to_string_lossy()));
    std::fs::copy(from, &part).with_context(failed)?;
    std::fs::rename(&part, to).with_context(failed)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_copied() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("a"), folder.path().join("deep/er/b"));
        std::fs::write(&from, "one").unwrap();
        assert!(copy_if_changed(&from, &to).unwrap());
        assert!(!copy_if_changed(&from, &to).unwrap());
        std::fs::write(&from, "two").unwrap();
        assert!(copy_if_changed(&from, &to).unwrap());
        assert_eq!(std::fs::read_to_string(&to).unwrap(), "two");
        assert_eq!(names_in(to.parent().unwrap()).unwrap(), ["b"]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = copy_if_changed(Path::new("/no/such/file"), Path::new("/tmp/x")).unwrap_err();
        assert_eq!(error.to_string(), "can't read /no/such/file");
    }
}
