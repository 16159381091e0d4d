//! What was compiled is kept, and used only as it was written.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use adapter_runtime::{AdapterRuntime, CompilerCommand, Limits, RuntimeConfig, RuntimeError, run_compiler};

use crate::fake_host::component;

fn runtime(dir: &Path, compiler: Option<CompilerCommand>) -> Result<AdapterRuntime, RuntimeError> {
    let limits = Limits { calls: 2, ..Limits::default() };
    AdapterRuntime::new(RuntimeConfig { cache_dir: Some(dir.to_owned()), limits, compiler })
}

/// The compiler is this test binary, running the test below alone.
fn child() -> CompilerCommand {
    let args = ["--exact", "compile::the_compiling_child", "--nocapture"].map(OsString::from);
    CompilerCommand { program: std::env::current_exe().unwrap(), args: args.to_vec() }
}

/// Never a compiler: whoever needs one fails.
fn no_compiler() -> CompilerCommand {
    CompilerCommand { program: PathBuf::from("/nonexistent/compiler"), args: Vec::new() }
}

#[test]
fn the_compiling_child() {
    if std::env::var_os("HYTHE_COMPILER_JOB").is_some()
        && let Err(error) = run_compiler()
    {
        panic!("{error}");
    }
}

fn kept(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn a_child_compiles_and_the_next_start_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("compiled");
    let bytes = component("steps-adapter");
    let first = runtime(&dir, Some(child())).unwrap().load("steps", &bytes).await.unwrap();
    let files = kept(&dir);
    assert_eq!(files.len(), 1, "{files:?}");
    assert!(files[0].file_name().unwrap().to_str().unwrap().starts_with(first.sha256()));
    // It could not be compiled now.
    let second = runtime(&dir, Some(no_compiler())).unwrap().load("steps", &bytes).await.unwrap();
    assert_eq!(first.descriptor(), second.descriptor());
}

#[tokio::test]
async fn what_decides_about_requests_is_compiled_for_both_engines() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("compiled");
    let bytes = component("canary-adapter");
    runtime(&dir, Some(child())).unwrap().load("canary", &bytes).await.unwrap();
    assert_eq!(kept(&dir).len(), 2);
    let again = runtime(&dir, Some(no_compiler())).unwrap().load("canary", &bytes).await.unwrap();
    assert!(again.routing().is_some());
}

#[tokio::test]
async fn a_damaged_file_is_compiled_again() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("compiled");
    let bytes = component("steps-adapter");
    runtime(&dir, None).unwrap().load("steps", &bytes).await.unwrap();
    let path = kept(&dir).remove(0);
    let whole = std::fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [&flipped[..], &whole[..whole.len() - 1], b"", b"hythe compiled component 1\n"] {
        std::fs::write(&path, damaged).unwrap();
        let error = runtime(&dir, Some(no_compiler())).unwrap().load("steps", &bytes).await.unwrap_err();
        assert!(error.to_string().contains("the compiling process could not be run"), "{error}");
        runtime(&dir, None).unwrap().load("steps", &bytes).await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap().len(), whole.len());
    }
}

#[tokio::test]
async fn a_compiler_that_fails_is_quoted() {
    let folder = tempfile::tempdir().unwrap();
    let shell = CompilerCommand {
        program: PathBuf::from("/bin/sh"),
        args: ["-c", "echo out of luck >&2; exit 7"].map(OsString::from).to_vec(),
    };
    let bytes = component("steps-adapter");
    let error =
        runtime(folder.path(), Some(shell)).unwrap().load("steps", &bytes).await.unwrap_err().to_string();
    assert!(
        error.contains("it can't be compiled: the compiling process ended with exit status: 7: out of luck"),
        "{error}"
    );
}

#[tokio::test]
async fn a_compiler_that_takes_too_long_is_ended() {
    let sleeper = CompilerCommand { program: PathBuf::from("/bin/sleep"), args: vec!["600".into()] };
    let limits = Limits { compile: std::time::Duration::from_millis(200), calls: 2, ..Limits::default() };
    let config = RuntimeConfig { cache_dir: None, limits, compiler: Some(sleeper) };
    let bytes = component("steps-adapter");
    let error = AdapterRuntime::new(config).unwrap().load("steps", &bytes).await.unwrap_err().to_string();
    assert!(error.contains("it can't be compiled: it took longer than 0.2 s"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_folder_that_others_may_write_to_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let error = runtime(folder.path(), None).unwrap_err().to_string();
    assert!(error.contains("may be written to by other users: chmod it to 0700"), "{error}");
    let made = folder.path().join("made");
    runtime(&made, None).unwrap();
    assert_eq!(std::fs::metadata(&made).unwrap().permissions().mode() & 0o777, 0o700);
}
