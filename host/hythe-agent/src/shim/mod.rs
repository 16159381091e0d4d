//! The shim: a small process between the daemon and one run of a workload (or one execution).
//!
//! It is the parent of what runs, so the exit code and all output are kept whether a daemon is there
//! or not; the daemon can die and come back at any time. It adopts whatever its children leave behind
//! (`PR_SET_CHILD_SUBREAPER`), so that nothing of the run remains when it ends, sessions of their own
//! or not. While it lives it holds the lock of the run's folder, inherited from the daemon before it was
//! started: there is no moment at which a run exists and the lock is free.
//!
//! Deliberately absent: restarts, ports, the network, tokio. It runs one plan once.

mod output;
pub mod plan;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use agent_api::Exit;
use anyhow::Context;
use rustix::fs::Mode;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use crate::cgroup::Entered;
use crate::clock::now_ms;
use crate::durable;
use crate::process::{self, ProcessId, signal_name};
use output::{Origin, Sink};
use plan::{ChildNote, EndNote, Outcome, Plan, RunFolder, ShimNote};

/// The hidden subcommand of the program.
pub const SUBCOMMAND: &str = "shim";

/// Starts a shim for the plan that lies in the folder. `lock` is the folder's, held.
pub fn start(program: &Path, folder: &RunFolder, lock: File) -> io::Result<Child> {
    let errors = File::create(folder.errors())?;
    Command::new(program)
        .arg0("hythe-agent")
        .arg(SUBCOMMAND)
        .arg(folder.path())
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(lock)))
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn()
}

/// The shim's own program: runs the plan in the folder to its end.
pub fn main(folder: &Path) -> anyhow::Result<()> {
    let folder = RunFolder::new(folder);
    let plan: Plan = durable::read_json(&folder.plan())?.context("there is no plan")?;
    let outcome = match Shim::new(folder.clone(), plan.clone()) {
        Ok(shim) => {
            let outcome = shim.run();
            shim.sink.end(&match &outcome {
                Outcome::Ended(exit) => exit.clone(),
                // As shells have it: 127 for what can't be started.
                Outcome::NotStarted(_) | Outcome::SetupFailed { .. } => Exit::Code(127),
                Outcome::Stopped => Exit::Signal("SIGKILL".to_owned()),
            });
            outcome
        }
        Err(error) => Outcome::NotStarted(format!("{error:#}")),
    };
    durable::write_json(&folder.end(), &EndNote { run: plan.run, at_ms: now_ms(), outcome })?;
    Ok(())
}

struct Shim {
    folder: RunFolder,
    plan: Plan,
    sink: Sink,
}

impl Shim {
    fn new(folder: RunFolder, plan: Plan) -> anyhow::Result<Self> {
        // Fails only where it leads a session already.
        let _ = rustix::process::setsid();
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .context("becoming a subreaper")?;
        rustix::process::umask(Mode::from_raw_mode(0o022));
        if plan.user.is_some() {
            rustix::thread::set_no_new_privs(true).context("giving up new privileges")?;
        }
        let own = ProcessId::of(std::process::id()).context("/proc doesn't show this process")?;
        let note = ShimNote { run: plan.run, incarnation: plan.incarnation, process: own };
        durable::write_json(&folder.shim(), &note)?;
        let sink = Sink::open(&plan.output).context("opening the output")?;
        Ok(Self { folder, plan, sink })
    }

    fn run(&self) -> Outcome {
        for command in &self.plan.setup {
            self.sink.say(&format!("setup: {}", command.join(" ")));
            match self.step(command, false) {
                Outcome::Ended(Exit::Code(0)) => {}
                Outcome::Ended(exit) => return Outcome::SetupFailed { command: command.clone(), exit },
                other => return other,
            }
        }
        if let Some((path, content)) = &self.plan.setup_done
            && let Err(error) = durable::write(path, content.as_bytes())
        {
            return Outcome::NotStarted(format!("noting that the set-up is done failed: {error}"));
        }
        self.step(&self.plan.command, true)
    }

    /// Runs one command to its end and ends all that it left.
    fn step(&self, command: &[String], is_command: bool) -> Outcome {
        if self.folder.stop().exists() {
            return Outcome::Stopped;
        }
        let mut child = match self.spawn(command) {
            Ok(child) => child,
            Err(error) => {
                let reason = self.explain(command, &error);
                self.sink.say(&reason);
                return Outcome::NotStarted(reason);
            }
        };
        if let Some(process) = ProcessId::of(child.id()) {
            let note = ChildNote { run: self.plan.run, process, is_command };
            if let Err(error) = durable::write_json(&self.folder.child(), &note) {
                self.sink.say(&format!("the process can't be noted: {error}"));
            }
        }
        let out = if is_command { Origin::Stdout } else { Origin::Setup };
        let err = if is_command { Origin::Stderr } else { Origin::Setup };
        let mut drained = Vec::new();
        drained.extend(child.stdout.take().map(|stdout| self.sink.drain(stdout, out)));
        drained.extend(child.stderr.take().map(|stderr| self.sink.drain(stderr, err)));

        let timer = self.plan.timeout_ms.map(|timeout| Timer::start(&child, Duration::from_millis(timeout)));
        let mut exit = wait_for(child.id());
        if timer.is_some_and(Timer::has_fired) {
            exit = Exit::TimedOut;
        }
        kill_descendants();
        output::wait_drained(&drained);
        Outcome::Ended(exit)
    }

    fn spawn(&self, command: &[String]) -> io::Result<Child> {
        let Some((program, arguments)) = command.split_first() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the command is empty"));
        };
        let mut spawned = Command::new(program);
        spawned
            .args(arguments)
            .env_clear()
            .envs(&self.plan.env)
            .current_dir(&self.plan.cwd)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        if let Some(user) = self.plan.user {
            spawned.uid(user.uid).gid(user.gid);
        }
        // A child begins where its parent is. A group that is gone is missed in the daemon's notes only.
        let _entered = self.plan.cgroup.as_deref().and_then(|group| Entered::enter(group).ok());
        spawned.spawn()
    }

    fn explain(&self, command: &[String], error: &io::Error) -> String {
        let program = command.first().map_or("", String::as_str);
        let path = self.plan.env.get("PATH").map_or("unset", String::as_str);
        let is_named_by_path = program.contains('/');
        match (error.kind(), self.plan.user) {
            (io::ErrorKind::NotFound, _) if !self.plan.cwd.is_dir() => format!(
                "the folder {} to run in doesn't exist: correct `cwd`, or add it to the source",
                self.plan.shown_cwd
            ),
            (io::ErrorKind::NotFound, _) if is_named_by_path => format!(
                "the program {program:?}, or the interpreter that its first line names, is not there: a path is \
                 relative to the folder to run in, {}",
                self.plan.shown_cwd
            ),
            (io::ErrorKind::NotFound, _) => format!(
                "the program {program:?}, or the interpreter that its first line names, is not there: install it on \
                 the machine, or name it by its path in the source (PATH is {path})"
            ),
            (io::ErrorKind::PermissionDenied, Some(user)) if !is_named_by_path => format!(
                "the program {program:?} is in no folder that user {} may read: install it for all users, or name it \
                 by its path in the source (PATH is {path})",
                user.uid
            ),
            (io::ErrorKind::PermissionDenied, user) => format!(
                "the program {program:?} may not be run{}: make it executable, and readable for others",
                user.map(|user| format!(" by user {}", user.uid)).unwrap_or_default()
            ),
            _ => format!("the program {program:?} can't be started: {error}"),
        }
    }
}

/// Kills a child's group after a while, unless dropped before.
struct Timer {
    fired: Arc<AtomicBool>,
    _cancel: Sender<()>,
}

impl Timer {
    fn start(child: &Child, after: Duration) -> Self {
        let fired = Arc::new(AtomicBool::new(false));
        let (cancel, cancelled) = channel();
        let (flag, leader) = (fired.clone(), raw(child.id()));
        std::thread::spawn(move || {
            if cancelled.recv_timeout(after) == Err(RecvTimeoutError::Timeout) {
                flag.store(true, Ordering::SeqCst);
                if let Some(leader) = leader {
                    let _ = rustix::process::kill_process_group(leader, Signal::KILL);
                }
            }
        });
        Self { fired, _cancel: cancel }
    }

    fn has_fired(self) -> bool {
        self.fired.load(Ordering::SeqCst)
    }
}

fn raw(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// Waits for the leader, and takes up what else ends meanwhile.
fn wait_for(leader: u32) -> Exit {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if raw(leader) == Some(pid) => return exit_of(status),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Exit::Unknown,
        }
    }
}

fn exit_of(status: WaitStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal_name(signal)),
        (None, None) => Exit::Unknown,
    }
}

/// Until none is left: what is killed may have started another just before.
fn kill_descendants() {
    loop {
        while matches!(rustix::process::wait(WaitOptions::NOHANG), Ok(Some(_))) {}
        let left = process::descendants(&[std::process::id()]);
        if left.is_empty() {
            return;
        }
        left.into_iter().for_each(process::kill);
        std::thread::sleep(Duration::from_millis(2));
    }
}
