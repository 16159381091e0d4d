//! Compiling components, and keeping what was compiled.
//!
//! Always holds: machine code is loaded only from a file of this crate's own folder (0700), under the
//! digest of the component and of the engine's settings, and only when the file's own digest is right. A
//! file that is not as it should be is compiled again. Files are written whole or not at all.

use std::ffi::OsString;
use std::hash::{Hash, Hasher};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt as _;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::engine::{Kind, Purpose, engine};
use crate::error::{LoadCause, RuntimeError};
use crate::limits::Limits;
use crate::stdio::cut;

/// First bytes of a kept file: what it is, and the format's number.
const MAGIC: &[u8] = b"hythe compiled component 1\n";
const DIGEST: usize = 32;
/// Where a compiling child finds its [`Job`].
const JOB: &str = "HYTHE_COMPILER_JOB";

/// A program that calls [`run_compiler`], such as the host's own with a hidden subcommand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompilerCommand {
    pub program: PathBuf,
    pub args: Vec<OsString>,
}

/// What a compiling child is to do. Travels as JSON in its environment.
#[derive(Serialize, Deserialize)]
struct Job {
    input: PathBuf,
    output: PathBuf,
    engine: Kind,
    /// Memory that a component may have: part of the engine's settings.
    memory_bytes: usize,
    /// Of the compiler's own address space.
    compile_memory_bytes: u64,
    compile_seconds: u64,
}

/// The child's side: compiles the one component that the parent asked for, under limits on memory and
/// time. For a hidden subcommand of the program that [`CompilerCommand`] names; the process should do
/// nothing else.
///
/// # Errors
/// One sentence, to be printed to standard error; the process should then exit with 1.
pub fn run_compiler() -> Result<(), String> {
    let job = std::env::var(JOB)
        .map_err(|_| format!("this command is called by the host itself, with {JOB} set"))?;
    let job: Job = serde_json::from_str(&job).map_err(|error| format!("{JOB} can't be read: {error}"))?;
    limit_process(&job);
    let input = std::fs::read(&job.input).map_err(|error| format!("{}: {error}", job.input.display()))?;
    let engine = engine(job.engine, job.memory_bytes, Purpose::Compile, &Limits::default())
        .map_err(|e| format!("{e:#}"))?;
    let code = engine.precompile_component(&input).map_err(|error| format!("{error:#}"))?;
    std::fs::write(&job.output, code).map_err(|error| format!("{}: {error}", job.output.display()))
}

fn limit_process(job: &Job) {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let limit = |value| Rlimit { current: Some(value), maximum: Some(value) };
    // Where the system refuses, the parent's time-out is left.
    let _ = setrlimit(Resource::As, limit(job.compile_memory_bytes));
    let _ = setrlimit(Resource::Cpu, limit(job.compile_seconds));
    let _ = setrlimit(Resource::Core, limit(0));
}

/// Lower-case hex SHA-256.
pub(crate) fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A digest of the engine's settings: what is compiled under others can't be loaded.
fn settings(engine: &Engine) -> String {
    struct Digester(Sha256);
    impl Hasher for Digester {
        fn finish(&self) -> u64 {
            0
        }
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
    }
    let mut digester = Digester(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut digester);
    hex::encode(&digester.0.finalize()[..8])
}

/// Turns components into machine code for one engine, once each.
pub(crate) struct Compiler {
    kind: Kind,
    dir: Option<PathBuf>,
    settings: String,
    command: Option<CompilerCommand>,
}

impl Compiler {
    pub(crate) fn new(
        kind: Kind,
        engine: &Engine,
        dir: Option<PathBuf>,
        command: Option<CompilerCommand>,
    ) -> Result<Self, RuntimeError> {
        if let Some(dir) = &dir {
            prepare(dir)?;
        }
        Ok(Self { kind, dir, settings: settings(engine), command })
    }

    /// The component, from what was kept or compiled now.
    pub(crate) async fn component(
        &self,
        engine: &Engine,
        sha256: &str,
        bytes: &[u8],
        limits: &Limits,
    ) -> Result<Component, LoadCause> {
        let kept = self.dir.as_ref().map(|dir| dir.join(format!("{sha256}-{}.cwasm", self.settings)));
        if let Some(path) = kept.clone() {
            let engine = engine.clone();
            if let Some(component) = blocking(move || Ok(read(&engine, &path))).await? {
                return Ok(component);
            }
        }
        let code = match &self.command {
            Some(command) => in_child(command, self.kind, bytes, limits).await?,
            None => {
                let (engine, bytes) = (engine.clone(), bytes.to_vec());
                blocking(move || {
                    engine
                        .precompile_component(&bytes)
                        .map_err(|error| LoadCause::Compile(format!("{error:#}")))
                })
                .await?
            }
        };
        let engine = engine.clone();
        blocking(move || {
            if let Some(path) = kept
                && let Err(error) = write(&path, &code)
            {
                // The next start compiles again.
                tracing::warn!(path = %path.display(), %error, "a compiled adapter could not be kept");
            }
            load(&engine, &code).map_err(|error| LoadCause::Compile(format!("{error:#}")))
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LoadCause> + Send + 'static,
) -> Result<T, LoadCause> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(LoadCause::Compile(format!("the compiler fell: {error}"))),
    }
}

/// Makes the folder where it is missing; refuses one that others may write to.
fn prepare(dir: &Path) -> Result<(), RuntimeError> {
    let fail = |problem: String| RuntimeError::CacheDir { path: dir.display().to_string(), problem };
    let io = |error: std::io::Error| fail(format!("can't be used: {error}"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
        let about = std::fs::metadata(dir).map_err(io)?;
        if about.mode() & 0o022 != 0 {
            return Err(fail(
                "may be written to by other users: chmod it to 0700, since machine code is loaded from it"
                    .to_owned(),
            ));
        }
        if about.uid() != rustix::process::geteuid().as_raw() {
            return Err(fail(
                "belongs to another user: name one of your own, since machine code is loaded from it"
                    .to_owned(),
            ));
        }
    }
    #[cfg(not(unix))]
    std::fs::create_dir_all(dir).map_err(io)?;
    Ok(())
}

/// A kept component; none where there is none, or where it is not as it was written.
fn read(engine: &Engine, path: &Path) -> Option<Component> {
    let file = match std::fs::read(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a kept adapter can't be read; it is compiled again");
            return None;
        }
    };
    let code = file.strip_prefix(MAGIC).and_then(|rest| rest.split_at_checked(DIGEST));
    let loaded = match code {
        Some((digest, code)) if Sha256::digest(code).as_slice() == digest => load(engine, code).ok(),
        _ => None,
    };
    if loaded.is_none() {
        tracing::warn!(path = %path.display(), "a kept adapter is damaged; it is compiled again");
    }
    loaded
}

fn write(path: &Path, code: &[u8]) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(MAGIC)?;
    file.write_all(&Sha256::digest(code))?;
    file.write_all(code)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Machine code as a component.
#[expect(unsafe_code, reason = "the code was made by this crate's compiler, and its digest checked since")]
fn load(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: both callers give what `precompile_component` made, unchanged: `read` has checked its digest
    // in a folder that only this user writes to; `component` has it from the compiler itself. wasmtime
    // checks version and settings.
    unsafe { Component::deserialize(engine, code) }
}

/// Compiles in a process of its own, which limits itself and is killed when its time is over.
async fn in_child(
    command: &CompilerCommand,
    engine: Kind,
    bytes: &[u8],
    limits: &Limits,
) -> Result<Vec<u8>, LoadCause> {
    let fail = |what: String| LoadCause::Compile(what);
    let io = |error: std::io::Error| fail(format!("the compiling process could not be run: {error}"));
    let folder = tempfile::Builder::new().prefix("hythe-compile-").tempdir().map_err(io)?;
    let job = Job {
        input: folder.path().join("in.wasm"),
        output: folder.path().join("out.cwasm"),
        engine,
        memory_bytes: limits.memory_bytes,
        compile_memory_bytes: limits.compile_memory_bytes,
        compile_seconds: limits.compile.as_secs().max(1),
    };
    tokio::fs::write(&job.input, bytes).await.map_err(io)?;
    let job_json = serde_json::to_string(&job).map_err(|error| fail(error.to_string()))?;
    let mut child = tokio::process::Command::new(&command.program)
        .args(&command.args)
        // None of the host's secrets; and not all of its processors.
        .env_clear()
        .env(JOB, job_json)
        .env("RAYON_NUM_THREADS", "2")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(io)?;
    let stderr = child.stderr.take();
    let ended = tokio::time::timeout(limits.compile, async {
        let mut said = Vec::new();
        if let Some(stderr) = stderr {
            stderr.take(64 * 1024).read_to_end(&mut said).await?;
        }
        Ok((child.wait().await?, said))
    });
    let (status, said) = match ended.await {
        Ok(ended) => ended.map_err(io)?,
        Err(_) => return Err(fail(format!("it took longer than {} s", limits.compile.as_secs_f64()))),
    };
    if !status.success() {
        let said = String::from_utf8_lossy(&said);
        return Err(fail(format!("the compiling process ended with {status}: {}", cut(said.trim(), 1000))));
    }
    tokio::fs::read(&job.output).await.map_err(io)
}
