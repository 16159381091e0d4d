//! `.sqlx`: what Postgres says of each query in the code, kept so that the code compiles, and its
//! queries are checked, with no database about (sqlx's offline mode; the files are what its macros
//! write to `SQLX_OFFLINE_DIR` when they ask a live database).
//!
//! Renewed from the migrations on a throw-away database; never edited.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

use crate::build::{copy_if_changed, names_in, on_host};
use crate::command::Command;
use crate::workspace::{Workspace, root, target};

/// The only crate with queries (see the layer check).
const CRATE: &str = "store";

/// Makes `.sqlx` what the queries and the migrations make.
///
/// # Errors
/// Where there is no Postgres, a migration fails, or a query is wrong; the compiler says which.
pub fn renew() -> Result<()> {
    let fresh = generate()?;
    let kept = committed();
    let mut changes = 0;
    for name in differing(&fresh, &kept)? {
        match fresh.join(&name) {
            file if file.exists() => drop(copy_if_changed(&file, &kept.join(&name))?),
            _ => {
                let gone = kept.join(&name);
                std::fs::remove_file(&gone).with_context(|| format!("can't remove {}", gone.display()))?;
            }
        }
        changes += 1;
    }
    let all = names_in(&kept)?.len();
    eprintln!("x: .sqlx holds {all} queries, {changes} changed");
    stop_test_database()
}

/// Fails where `.sqlx` is not what the queries and the migrations make.
///
/// # Errors
/// As [`renew`], and for each difference.
pub fn check() -> Result<()> {
    let fresh = generate()?;
    let differing = differing(&fresh, &committed())?;
    if !differing.is_empty() {
        bail!(
            ".sqlx is not what the queries and migrations make: {} differ. Type `./x sqlx` and commit .sqlx.\n  {}",
            differing.len(),
            differing.join("\n  ")
        );
    }
    Ok(())
}

/// Stops the Postgres that tests and this module share, where one runs.
///
/// # Errors
/// Where it runs and can't be stopped.
pub fn stop_test_database() -> Result<()> {
    let helper = helper();
    if !helper.exists() {
        return Ok(());
    }
    Command::new(helper).arg("stop").output().map(drop)
}

fn committed() -> PathBuf {
    root().join(".sqlx")
}

/// The program that deals with databases, so that xtask itself need not be linked with a driver.
fn helper() -> PathBuf {
    target().join("debug/xtask-database")
}

/// Compiles the queries against a database made by the migrations; gives the folder with what it said.
fn generate() -> Result<PathBuf> {
    on_host(Command::cargo("build"), &Workspace::load()?).each("--bin", ["xtask-database"]).run()?;
    let url = Command::new(helper()).arg("prepare").output()?;

    let fresh = target().join("sqlx-cache");
    let failed = || format!("can't make the folder {}", fresh.display());
    if fresh.exists() {
        std::fs::remove_dir_all(&fresh).with_context(failed)?;
    }
    std::fs::create_dir_all(&fresh).with_context(failed)?;

    // The compiler does not know that the queries depend on a database: the crate must look changed.
    let _touched = Touched::new(&root().join("host").join(CRATE).join("src/lib.rs"))?;
    Command::cargo("check")
        .args(["-p", CRATE, "--all-targets"])
        .env("SQLX_OFFLINE", "false")
        .env("SQLX_OFFLINE_DIR", &fresh)
        .env("DATABASE_URL", url.trim())
        .run()?;
    Ok(fresh)
}

/// A file that looks changed until this is dropped.
struct Touched {
    file: std::fs::File,
    before: SystemTime,
}

impl Touched {
    fn new(path: &Path) -> Result<Self> {
        let failed = || format!("can't change the time of {}", path.display());
        let file = std::fs::File::options().append(true).open(path).with_context(failed)?;
        let before = file.metadata().and_then(|data| data.modified()).with_context(failed)?;
        file.set_modified(SystemTime::now()).with_context(failed)?;
        Ok(Self { file, before })
    }
}

impl Drop for Touched {
    fn drop(&mut self) {
        // Where this fails the crate is compiled once more, nothing else.
        let _ = self.file.set_modified(self.before);
    }
}

/// Names of the files that are in one folder only, or differ.
fn differing(fresh: &Path, kept: &Path) -> Result<Vec<String>> {
    let (fresh, kept) = (contents(fresh)?, contents(kept)?);
    let names: std::collections::BTreeSet<_> = fresh.keys().chain(kept.keys()).collect();
    Ok(names.into_iter().filter(|name| fresh.get(*name) != kept.get(*name)).cloned().collect())
}

fn contents(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let read = |name: String| {
        let path = folder.join(&name);
        let bytes = std::fs::read(&path).with_context(|| format!("can't read {}", path.display()))?;
        Ok((name, bytes))
    };
    names_in(folder)?.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_gone_and_changed_files_differ() {
        let (fresh, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let put = |folder: &tempfile::TempDir, name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).unwrap();
        };
        put(&fresh, "same", "a");
        put(&kept, "same", "a");
        put(&fresh, "changed", "a");
        put(&kept, "changed", "b");
        put(&fresh, "new", "a");
        put(&kept, "gone", "a");
        assert_eq!(differing(fresh.path(), kept.path()).unwrap(), ["changed", "gone", "new"]);
    }

    #[test]
    fn no_folder_is_an_empty_one() {
        let empty = tempfile::tempdir().unwrap();
        assert!(differing(empty.path(), Path::new("/no/such/folder")).unwrap().is_empty());
    }

    #[test]
    fn a_touched_file_gets_its_time_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lib.rs");
        std::fs::write(&path, "code").unwrap();
        let then = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        std::fs::File::options().append(true).open(&path).unwrap().set_modified(then).unwrap();
        let modified = || std::fs::metadata(&path).unwrap().modified().unwrap();
        let touched = Touched::new(&path).unwrap();
        assert!(modified() > then);
        drop(touched);
        assert_eq!(modified(), then);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "code");
    }
}
