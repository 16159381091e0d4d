//! Commands that run inside a workload beside it: each in a shim of its own, its output as frames in a
//! file until an hour after its end.
//!
//! An execution id runs at most once, and goes on whether anybody reads it, or any daemon lives, or not.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent_api::frame::{Decoder, Frame};
use agent_api::{ExecRequest, Exit, WorkloadPhase};
use bytes::Bytes;
use model::ExecutionId;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::data;
use crate::durable;
use crate::problem::Refusal;
use crate::process::{self, ProcessId, Watched};
use crate::shim;
use crate::shim::plan::{Output, Plan, RunFolder, ShimNote};
use crate::watch::FolderWatch;
use crate::workload::{Workload, check_command, check_cwd, check_environment, cwd, environment};

const DEFAULT_TIMEOUT_MS: u64 = 120_000;
/// Running at once in one workload.
const MAX_RUNNING: usize = 64;
/// Output is kept for so long after the end.
const KEEP: Duration = Duration::from_secs(3600);
const CHUNK: u64 = 256 * 1024;

/// The executions of one workload.
#[derive(Debug)]
pub struct Executions {
    folder: PathBuf,
    /// Held while one is started, and while all are ended: none slips in between.
    starting: tokio::sync::Mutex<()>,
    known: Mutex<HashMap<ExecutionId, RunFolder>>,
}

fn frames(folder: &RunFolder) -> PathBuf {
    folder.path().join("frames")
}

impl Executions {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, starting: tokio::sync::Mutex::default(), known: Mutex::default() }
    }

    /// Finds what earlier daemons started.
    pub fn take_up(&self) -> io::Result<()> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries.flatten() {
            if let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                let folder = RunFolder::new(entry.path());
                // A crash may have come before it could begin.
                File::options().append(true).create(true).open(frames(&folder))?;
                Transcript { folder: folder.clone() }.is_over()?;
                self.known.lock().insert(id, folder);
            }
        }
        Ok(())
    }

    /// Where their notes lie.
    pub fn folders(&self) -> Vec<RunFolder> {
        self.known.lock().values().cloned().collect()
    }

    /// The execution's output, where it is (still) known.
    pub fn find(&self, id: ExecutionId) -> Option<Transcript> {
        self.known.lock().get(&id).cloned().map(|folder| Transcript { folder })
    }

    /// Runs the command, unless this id was seen before.
    pub async fn start(
        &self,
        workload: &Arc<Workload>,
        id: ExecutionId,
        request: ExecRequest,
    ) -> Result<Transcript, Refusal> {
        let _starting = self.starting.lock().await;
        if let Some(known) = self.find(id) {
            return Ok(known);
        }
        check_command("argv", &request.argv)?;
        check_environment("env", &request.env)?;
        check_cwd("cwd", request.cwd.as_deref())?;
        let record = workload.record();
        let runs = matches!(record.phase, WorkloadPhase::Running | WorkloadPhase::Starting);
        if !runs || !workload.folder.app().is_dir() {
            return Err(Refusal::not_running(format!(
                "{} is not running on this machine: start it, then run commands in it",
                workload.id
            )));
        }
        let running = self.folders().iter().filter(|folder| !folder.end().exists()).count();
        if running >= MAX_RUNNING {
            return Err(Refusal::unavailable(format!(
                "{running} commands run in {} already: let one end first",
                workload.id
            )));
        }
        let context = workload.context.clone();
        let folder = RunFolder::new(self.folder.join(id.to_string()));
        let asked = request.cwd.as_deref().or(record.spec.cwd.as_deref());
        let (cwd, shown_cwd) = cwd(&workload.folder, asked);
        let plan = Plan {
            run: 1,
            incarnation: record.incarnation,
            setup: Vec::new(),
            setup_done: None,
            command: request.argv,
            cwd,
            shown_cwd,
            env: environment(&record, &workload.folder, &context.path, &request.env),
            user: record.user,
            cgroup: context.cgroups.existing(&workload.id.to_string()),
            output: Output::Frames(frames(&folder)),
            timeout_ms: Some(request.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS)),
        };
        let started = folder.clone();
        let child = tokio::task::spawn_blocking(move || -> io::Result<_> {
            data::make(folder.path(), 0o700)?;
            File::create(frames(&folder))?;
            durable::write_json(&folder.plan(), &plan)?;
            let lock = folder.lock()?.ok_or_else(|| io::Error::other("the execution's folder is locked"))?;
            shim::start(&context.program, &folder, lock)
        });
        let mut child = child.await.map_err(io::Error::other)??;
        self.known.lock().insert(id, started.clone());
        let watched = ProcessId::of(child.id()).and_then(|shim| Watched::new(&shim).ok().flatten());
        tokio::spawn(async move {
            if let Some(watched) = watched {
                watched.ended().await;
            }
            let _ = tokio::task::spawn_blocking(move || child.wait()).await;
        });
        Ok(Transcript { folder: started })
    }

    /// Kills all that run, and waits until they are gone.
    pub async fn end_all(&self) {
        let _starting = self.starting.lock().await;
        for folder in self.folders() {
            for attempt in 0.. {
                if !matches!(folder.lock(), Ok(None)) {
                    break;
                }
                if let Ok(Some(note)) = durable::read_json::<ShimNote>(&folder.shim())
                    && note.process.is_alive()
                {
                    process::descendants(&[note.process.pid]).into_iter().for_each(process::kill);
                    if attempt > 250 {
                        note.process.signal(rustix::process::Signal::KILL);
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Forgets them: their files are about to go.
    pub fn forget(&self) {
        self.known.lock().clear();
    }

    /// Removes those that ended long ago.
    pub fn prune(&self) {
        self.known.lock().retain(|_, folder| {
            let ended = folder.end().metadata().and_then(|meta| meta.modified());
            let old = ended.ok().and_then(|at| at.elapsed().ok()).is_some_and(|since| since > KEEP);
            !old || durable::remove_folder(folder.path()).is_err()
        });
    }
}

/// The output of one execution.
#[derive(Debug, Clone)]
pub struct Transcript {
    folder: RunFolder,
}

impl Transcript {
    /// Sends the frames' bytes from the cursor on, as they come, until the exit; or until nobody listens.
    pub async fn send(self, cursor: u64, to: mpsc::Sender<Bytes>) {
        let mut watch = FolderWatch::new(self.folder.path());
        let mut at = cursor;
        loop {
            let output = self.clone();
            let Ok(Ok((bytes, over))) = tokio::task::spawn_blocking(move || output.read(at)).await else {
                return;
            };
            if bytes.is_empty() {
                if over {
                    return;
                }
                tokio::select! {
                    () = watch.changed() => {}
                    () = to.closed() => return,
                }
                continue;
            }
            at += bytes.len() as u64;
            if to.send(bytes.into()).await.is_err() {
                return;
            }
        }
    }

    /// What there is from the place on, and whether nothing more will come.
    fn read(&self, at: u64) -> io::Result<(Vec<u8>, bool)> {
        // Before reading: what was written before the end is read then.
        let over = self.is_over()?;
        let mut file = File::open(frames(&self.folder))?;
        file.seek(SeekFrom::Start(at))?;
        let mut bytes = Vec::new();
        file.take(CHUNK).read_to_end(&mut bytes)?;
        Ok((bytes, over))
    }

    /// Whether it has ended. Where its shim was killed, it says so in the frames.
    fn is_over(&self) -> io::Result<bool> {
        if self.folder.end().exists() {
            return Ok(true);
        }
        let Some(_lock) = self.folder.lock()? else { return Ok(false) };
        if !self.folder.end().exists() {
            self.end_unknown()?;
        }
        Ok(true)
    }

    /// Cuts what is no whole frame, and appends the end, where there is none.
    fn end_unknown(&self) -> io::Result<()> {
        let mut file = OpenOptions::new().read(true).write(true).open(frames(&self.folder))?;
        let mut decoder = Decoder::default();
        let mut ended = false;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            decoder.push(&buffer[..count]);
            while let Ok(Some(frame)) = decoder.next_frame() {
                ended |= matches!(frame, Frame::Exit(_));
            }
        }
        if !ended {
            file.set_len(decoder.consumed())?;
            file.seek(SeekFrom::End(0))?;
            let mut bytes = Vec::new();
            Frame::Exit(Exit::Unknown).encode(&mut bytes);
            file.write_all(&bytes)?;
        }
        let note = shim::plan::EndNote {
            run: 1,
            at_ms: crate::clock::now_ms(),
            outcome: shim::plan::Outcome::Ended(Exit::Unknown),
        };
        durable::write_json(&self.folder.end(), &note)
    }
}
