//! The host contains no runtime's name: a text search over its sources for the names of the adapters
//! that ship, as string literals.
//!
//! Only whole literals in Rust code count: `"process"`, not "a process"; and since a machine is also a
//! thing that the host knows, only those that something is decided by: compared, matched, parsed, or on
//! a line that speaks of a runtime or an adapter. Comments, attributes, tests (folders `tests`, and what
//! follows `#[cfg(test)]`) and the default configuration, which is TOML, are left out. A literal that
//! means something else all the same says so on its line: `// not a runtime: <what>`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Says that a literal is not a runtime's name.
const MARKER: &str = "// not a runtime:";

/// Literals that name a runtime, one sentence each.
///
/// # Errors
/// Where the sources can't be read.
pub fn violations(root: &Path, runtimes: &[&str]) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for (part, is_folder) in folders(&root.join("host"))? {
        // These two are for tests: they name what they test.
        if is_folder && !part.ends_with("xtask") && !part.ends_with("test-kit") {
            collect(&part.join("src"), &mut files)?;
        }
    }
    files.sort();
    let mut wrong = Vec::new();
    for file in files {
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
        let shown = file.strip_prefix(root).unwrap_or(&file).display();
        for (line, name) in named(&text, runtimes) {
            wrong.push(format!(
                "{shown}:{line} names the runtime \"{name}\": what differs belongs in the adapter or its grants; \
                 if it means something else, end the line with `{MARKER} <what it is>`"
            ));
        }
    }
    Ok(wrong)
}

/// Lines, counted from 1, with a literal that is one of the names.
fn named<'n>(text: &str, names: &[&'n str]) -> Vec<(usize, &'n str)> {
    let code = text.lines().take_while(|line| line.trim() != "#[cfg(test)]");
    code.enumerate()
        .filter(|(_, line)| !line.contains(MARKER) && !line.trim_start().starts_with(['/', '#']))
        .filter_map(|(index, line)| {
            let name = names.iter().find(|name| decides_by(line, &format!("\"{name}\"")))?;
            Some((index + 1, *name))
        })
        .collect()
}

/// Whether something is decided by the literal in this line.
fn decides_by(line: &str, literal: &str) -> bool {
    let mentions = ["runtime", "adapter"].iter().any(|word| line.to_lowercase().contains(word));
    line.match_indices(literal).any(|(at, _)| {
        let (before, after) = (line[..at].trim_end(), line[at + literal.len()..].trim_start());
        mentions
            || ["==", "!=", "|"].iter().any(|sign| before.ends_with(sign))
            || ["==", "!=", "|", "=>", ".parse"].iter().any(|sign| after.starts_with(sign))
    })
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for (path, is_folder) in folders(folder)? {
        if is_folder {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// What is in a folder, and whether it is a folder itself. Folders named `tests` are left out.
fn folders(folder: &Path) -> Result<Vec<(PathBuf, bool)>> {
    let failed = || format!("can't read the folder {}", folder.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        let is_folder = path.is_dir();
        if !(is_folder && path.ends_with("tests")) {
            found.push((path, is_folder));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[(usize, &str)]) {
        assert_eq!(named(text, &["machine", "process"]), expected, "{text}");
    }

    #[test]
    fn literals_are_found() {
        check("let a = 1;\nif runtime == \"process\" {", &[(2, "process")]);
        check("match x { \"machine\" => 1 }", &[(1, "machine")]);
        check("matches!(kind, \"wasm\" | \"machine\")", &[(1, "machine")]);
        check("let default: RuntimeType = make(\"process\");", &[(1, "process")]);
        check("let it = \"process\".parse()?;", &[(1, "process")]);
    }

    #[test]
    fn what_only_looks_like_one_is_not() {
        check("/// `\"process\"` is a runtime", &[]);
        check("let a = \"a process\"; let process = 1;", &[]);
        check("let row = (\"machine\", machine.id.to_string());", &[]);
        check("#[schema(example = \"process\")] // a runtime", &[]);
        check("\"machine\" => 1, // not a runtime: a table's column", &[]);
        check("fn a() {}\n#[cfg(test)]\nmod tests { const RUNTIME: &str = \"process\"; }", &[]);
    }

    #[test]
    fn a_tree_is_searched() {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("host/a/src/lib.rs", "mod deep;"),
            ("host/a/src/deep/mod.rs", "\n\nconst RUNTIME: &str = \"process\";"),
            ("host/a/src/deep/default.toml", "runtime = \"process\""),
            ("host/a/tests/all.rs", "const RUNTIME: &str = \"process\";"),
            ("host/xtask/src/main.rs", "const RUNTIME: &str = \"process\";"),
        ] {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let wrong = violations(root.path(), &["process"]).unwrap();
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        assert!(wrong[0].starts_with("host/a/src/deep/mod.rs:3 names the runtime \"process\""), "{wrong:?}");
    }
}
