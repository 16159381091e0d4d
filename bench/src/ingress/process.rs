//! A measured program: started on its core, looked at through `/proc`, stopped with all of its children.
//!
//! Every program is started through `bench pinned`, which binds itself to the core before it becomes the program: no
//! thread of it ever ran elsewhere. Processor time is the scheduler's own (`schedstat`, nanoseconds); `utime` and
//! `stime` of `stat` are sampled by ticks and too coarse.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Processes that must not outlive us.
static ALIVE: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Ends all that was started and not stopped: for when a person ends us.
pub fn kill_all() {
    for &pid in ALIVE.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        for pid in tree(pid) {
            signal(pid, Signal::KILL);
        }
    }
}

/// Raises how many files may be open as far as may be; says how many.
pub fn raise_open_files() -> u64 {
    let wanted = 200_000;
    // Above the hard limit only the privileged may go.
    if setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: Some(wanted) }).is_err() {
        let maximum = getrlimit(Resource::Nofile).maximum;
        // Where this fails too, what is reported below is what there is.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Binds this thread, and what it starts, to one core.
///
/// # Errors
/// Where there is no such core.
pub fn bind_to(core: usize) -> anyhow::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).with_context(|| format!("can't be bound to core {core}"))
}

/// `bench pinned <core> <program> …`: binds itself to the core, then becomes the program.
///
/// # Errors
/// Where the program can't be run. Does not return otherwise.
pub fn become_pinned(core: usize, command: &[String]) -> anyhow::Result<()> {
    let (program, arguments) = command.split_first().context("which program?")?;
    bind_to(core)?;
    raise_open_files();
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    Err(Command::new(program).args(arguments).exec()).with_context(|| format!("can't run {program}"))
}

/// What a tree of processes used and holds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// On a core, since it began, in nanoseconds.
    pub cpu_ns: u64,
    /// Resident memory, in KiB: each process's own count, shared pages counted in each.
    pub rss_kib: u64,
}

/// What is started.
#[derive(Debug, Clone)]
pub struct Start {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// Its working folder; what it prints goes to `log` there.
    pub folder: PathBuf,
}

/// What a program may take to start.
#[derive(Debug, Clone, Copy)]
pub struct Allowed {
    pub time: Duration,
    pub memory_mib: u64,
}

/// A running program.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
    paused: bool,
}

impl Process {
    /// Starts it on `core`.
    ///
    /// # Errors
    /// Where it can't be run.
    pub fn start(start: &Start, core: usize) -> anyhow::Result<Self> {
        let log = start.folder.join("log");
        let output = File::create(&log).with_context(|| format!("can't write {}", log.display()))?;
        let child = Command::new(std::env::current_exe()?)
            .args(["pinned", &core.to_string()])
            .arg("--")
            .arg(&start.program)
            .args(&start.arguments)
            // What it says at its end should be the error, not a backtrace.
            .env("RUST_BACKTRACE", "0")
            .envs(start.environment.iter().cloned())
            .current_dir(&start.folder)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // Not the terminal's Ctrl-C: we end it.
            .process_group(0)
            .spawn()
            .with_context(|| format!("can't run {}", start.program.display()))?;
        ALIVE.lock().unwrap_or_else(PoisonError::into_inner).insert(child.id());
        Ok(Self { child, log, paused: false })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it ended, and how.
    ///
    /// # Errors
    /// As waitpid(2).
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// The last of what it printed.
    pub fn said(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(3)..].iter().map(|line| line.trim()).collect::<Vec<_>>().join(" / ")
    }

    /// Waits until `ready` says so; says how long that took.
    ///
    /// # Errors
    /// Where the program ends before, or takes more time or memory than it may: with what it printed last.
    pub fn wait(&mut self, allowed: Allowed, ready: impl Fn(&Self) -> bool) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        while !ready(self) {
            if let Some(status) = self.ended()? {
                bail!("ended at start ({status}): {}", shortened(&self.said()));
            }
            let said = || match self.said() {
                said if said.is_empty() => "it said nothing".to_owned(),
                said => format!("it said: {}", shortened(&said)),
            };
            if begun.elapsed() > allowed.time {
                bail!("did not serve within {} s; {}", allowed.time.as_secs(), said());
            }
            let mib = self.usage().map_or(0, |usage| usage.rss_kib / 1024);
            if mib > allowed.memory_mib {
                bail!("took more than {} MiB and did not serve yet; {}", allowed.memory_mib, said());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(begun.elapsed())
    }

    /// What the whole tree used and holds.
    ///
    /// # Errors
    /// Where it is gone.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        let mut usage = Usage::default();
        for pid in tree(self.pid()) {
            usage.cpu_ns += cpu_ns(pid).with_context(|| format!("process {pid} is gone"))?;
            usage.rss_kib += status_kib(pid, "VmRSS:");
        }
        Ok(usage)
    }

    /// Keeps it off its core, while another one is measured.
    pub fn pause(&mut self) {
        if !self.paused {
            self.paused = true;
            for pid in tree(self.pid()) {
                signal(pid, Signal::STOP);
            }
        }
    }

    /// The opposite.
    pub fn go_on(&mut self) {
        if self.paused {
            self.paused = false;
            for pid in tree(self.pid()) {
                signal(pid, Signal::CONT);
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let tree = tree(self.pid());
        if matches!(self.child.try_wait(), Ok(None)) {
            for pid in tree {
                signal(pid, Signal::KILL);
            }
            // Killed: it ends.
            let _ = self.child.wait();
        }
        ALIVE.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.pid());
    }
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended by itself.
        let _ = kill_process(pid, signal);
    }
}

/// The process and all of its descendants.
fn tree(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        next += 1;
        for task in tasks(pid) {
            let children = std::fs::read_to_string(task.join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    found
}

fn tasks(pid: u32) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task"));
    folder.map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}

/// Time on a core of all of its threads.
fn cpu_ns(pid: u32) -> Option<u64> {
    let times: Vec<u64> = tasks(pid)
        .iter()
        .filter_map(|task| {
            let text = std::fs::read_to_string(task.join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        })
        .collect();
    (!times.is_empty()).then(|| times.iter().sum())
}

fn status_kib(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or_default()
}

/// At most so much of what a program said as fits into a table.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 240;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text.to_owned(),
    }
}

/// A port that is free now, below the range from which connections take theirs.
///
/// # Errors
/// Where there is none.
pub fn free_port() -> anyhow::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        if port >= 32_000 {
            bail!("no port from 20000 to 32000 is free");
        }
        if std::net::TcpListener::bind(local(port)).is_ok() {
            return Ok(port);
        }
    }
}

/// A port on this machine.
pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
