//! Makes one workload be what its record wants, turn by turn: each turn looks at the record and at what
//! runs, does one step, and looks again. It may be cut off anywhere: the next daemon's first turn sees
//! the same record and the same processes.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use agent_api::{Exit, RestartPolicy, WorkloadPhase};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::record::{DEFAULT_GRACE_MS, Launch, Record, Wanted};
use super::run::{self, Run};
use super::{Workload, files, spec};
use crate::cgroup;
use crate::clock::now_ms;
use crate::context::Life;
use crate::durable;
use crate::faults;
use crate::log::last_words;
use crate::process::{self, ProcessId};
use crate::shim::plan::{Outcome, Output, Plan};
use crate::source::SourceError;

/// A run of so long resets the count of restarts in a row.
const STEADY: Duration = Duration::from_secs(60);
/// Between two looks at whether a start has succeeded: from, to.
const LOOK: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));
/// A local connection that takes longer is none.
const CONNECT: Duration = Duration::from_secs(1);
/// After SIGKILL, before the shim goes too.
const PATIENCE: Duration = Duration::from_secs(5);
/// What a person is shown of the last output.
const LAST_LINES: u32 = 10;
const LAST_BYTES: usize = 2000;

/// How a workload came to this daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// An earlier daemon left it.
    Disk,
    /// It is new.
    Request,
}

pub struct Supervisor {
    workload: Arc<Workload>,
    changes: watch::Receiver<Arc<Record>>,
    life: watch::Receiver<Life>,
    run: Option<Run>,
    /// The pause before a restart ends then.
    resume_at: Option<Instant>,
}

impl Supervisor {
    /// Takes up what runs, then supervises until the daemon ends.
    pub async fn supervise(workload: Arc<Workload>, origin: Origin) {
        let (changes, life) = (workload.subscribe(), workload.context.life.subscribe());
        let mut supervisor = Self { workload, changes, life, run: None, resume_at: None };
        let id = supervisor.workload.id;
        while let Err(error) = supervisor.take_up(origin).await {
            tracing::error!(deployment.id = %id, error = %error, "looking for what runs failed; tries again");
            sleep(Duration::from_secs(1)).await;
        }
        loop {
            match supervisor.turn().await {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return,
                Err(error) => {
                    tracing::error!(deployment.id = %id, error = %error, "a step failed; tries again");
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    async fn take_up(&mut self, origin: Origin) -> io::Result<()> {
        if origin == Origin::Request {
            return Ok(());
        }
        self.run = Run::find(self.workload.folder.run()).await?;
        let workload = self.workload.clone();
        tokio::task::spawn_blocking(move || workload.executions.take_up())
            .await
            .map_err(io::Error::other)??;
        if self.run.is_none() {
            // A start is not late because no daemon was there.
            self.workload
                .change(|record| {
                    if record.wanted == Wanted::Running && record.phase == WorkloadPhase::Starting {
                        record.since_ms = now_ms();
                    }
                    Ok::<_, io::Error>(())
                })
                .await?;
        }
        if let Some(run) = &self.run {
            self.workload.say(&format!("the daemon is back and found run {} going on", run.number));
        }
        Ok(())
    }

    async fn turn(&mut self) -> io::Result<ControlFlow<()>> {
        let record = self.changes.borrow_and_update().clone();
        let life = *self.life.borrow_and_update();
        match life {
            Life::Serving => {}
            Life::Leaving => return Ok(ControlFlow::Break(())),
            Life::Stopping => return self.leave(&record).await.map(ControlFlow::Break),
        }
        if let Some(run) = &self.run
            && (record.wanted != Wanted::Running
                || run.incarnation != record.incarnation
                || record.launched.is_none_or(|launch| launch.run != run.number))
        {
            self.end_run().await?;
            return Ok(ControlFlow::Continue(()));
        }
        match (record.wanted, record.phase) {
            (Wanted::Destroyed, WorkloadPhase::Destroyed)
            | (Wanted::Stopped, WorkloadPhase::Stopped)
            | (Wanted::Running, WorkloadPhase::Failed) => self.wait_for_change().await,
            (Wanted::Destroyed, _) => self.remove().await?,
            (Wanted::Stopped, _) => self.stopped().await?,
            (Wanted::Running, WorkloadPhase::Running) if self.run.is_some() => self.watch_run().await,
            (Wanted::Running, _) if self.run.is_some() => self.watch_start(&record).await?,
            (Wanted::Running, _) => match record.launched {
                Some(launch) => self.account_for(&record, launch).await?,
                None => self.start(&record).await?,
            },
        }
        Ok(ControlFlow::Continue(()))
    }

    async fn wait_for_change(&mut self) {
        tokio::select! {
            _ = self.changes.changed() => {}
            _ = self.life.changed() => {}
        }
    }

    // Starting.

    async fn start(&mut self, record: &Record) -> io::Result<()> {
        if now_ms() >= record.start_deadline_ms() {
            return self.start_took_too_long(record).await;
        }
        if let Some(resume_at) = self.resume_at
            && Instant::now() < resume_at
        {
            let until = resume_at.min(deadline(record));
            tokio::select! {
                () = sleep_until(until) => {}
                () = self.wait_for_change() => {}
            }
            return Ok(());
        }
        self.resume_at = None;

        let (workload, asked) = (self.workload.clone(), record.clone());
        let ready = tokio::task::spawn_blocking(move || {
            let unpacked = files::make_ready(&workload.context, &workload.folder, &asked)?;
            Ok((unpacked, workload.context.cgroups.prepare(&workload.id.to_string(), &asked.spec.limits)))
        });
        let (unpacked, notes) = match ready.await.map_err(io::Error::other)? {
            Ok(ready) => ready,
            Err(error) => {
                let reason = match error {
                    SourceError::Io(error) => format!("the files can't be made ready: {error}"),
                    other => other.to_string(),
                };
                return self.fail(record, reason).await;
            }
        };
        if notes != record.notes {
            notes.iter().for_each(|note| self.workload.say(note));
        }
        let incarnation = record.incarnation;
        let launched = self.workload.change(move |record| {
            if record.wanted != Wanted::Running || record.incarnation != incarnation {
                return Ok::<_, io::Error>(None);
            }
            record.unpacked = Some(unpacked);
            record.notes = notes;
            record.runs += 1;
            record.launched = Some(Launch { run: record.runs, incarnation, at_ms: now_ms() });
            Ok(Some(record.clone()))
        });
        let Some(record) = launched.await? else { return Ok(()) };
        let workload = self.workload.clone();
        let started = tokio::task::spawn_blocking(move || launch(&workload, &record));
        self.run = match started.await.map_err(io::Error::other)?? {
            Some(run) => Some(run),
            None => Run::find(self.workload.folder.run()).await?,
        };
        Ok(())
    }

    /// A run that isn't up yet.
    async fn watch_start(&mut self, record: &Record) -> io::Result<()> {
        let Some(run) = &mut self.run else { return Ok(()) };
        let number = run.number;
        tokio::select! {
            () = run.ended() => self.run = None,
            _ = self.changes.changed() => {}
            _ = self.life.changed() => {}
            () = sleep_until(deadline(record)) => {
                self.end_run().await?;
                self.start_took_too_long(record).await?;
            }
            () = is_up(&self.workload, record, number) => {
                let incarnation = record.incarnation;
                self.workload.change(move |record| {
                    let current = record.launched.is_some_and(|launch| launch.run == number);
                    if current && record.incarnation == incarnation && record.wanted == Wanted::Running {
                        let notes = (!record.notes.is_empty()).then(|| record.notes.join("; "));
                        record.enter(WorkloadPhase::Running, notes);
                    }
                    Ok::<_, io::Error>(())
                }).await?;
            }
        }
        Ok(())
    }

    async fn watch_run(&mut self) {
        let Some(run) = &mut self.run else { return };
        tokio::select! {
            () = run.ended() => self.run = None,
            _ = self.changes.changed() => {}
            _ = self.life.changed() => {}
        }
    }

    /// A run has ended, or never came about: what follows from it.
    async fn account_for(&mut self, record: &Record, launch: Launch) -> io::Result<()> {
        if launch.incarnation != record.incarnation {
            self.nothing_left().await?;
            return self
                .workload
                .change(|record| {
                    record.launched = None;
                    Ok::<_, io::Error>(())
                })
                .await;
        }
        let note = Run::end(&self.workload.folder.run(), launch.run)?;
        if note.is_none() {
            // Nobody saw to it that all of the run ended with its shim.
            self.sweep().await?;
        }
        let ended_at = note.as_ref().map_or_else(now_ms, |note| note.at_ms);
        let outcome = note.map_or(Outcome::Ended(Exit::Unknown), |note| note.outcome);
        let exit = match outcome {
            Outcome::NotStarted(reason) => return self.fail(record, reason).await,
            Outcome::SetupFailed { command, exit } => {
                let reason = format!("the set-up command `{}` {}", command.join(" "), told(&exit));
                return self.fail(record, self.with_last_words(reason)).await;
            }
            Outcome::Stopped => {
                return self
                    .workload
                    .change(|record| {
                        record.launched = None;
                        Ok::<_, io::Error>(())
                    })
                    .await;
            }
            Outcome::Ended(exit) => exit,
        };
        let steady = Duration::from_millis(ended_at.saturating_sub(launch.at_ms)) >= STEADY;
        let streak = if steady { 0 } else { record.streak };
        let policy = &record.spec.restart;
        let what = format!("it {}", told(&exit));
        let incarnation = record.incarnation;
        if streak >= policy.max_attempts {
            let reason = match policy.max_attempts {
                0 => format!("{what}, and is not to be restarted"),
                times => format!("{what} after {times} restarts in a row"),
            };
            let reason = self.with_last_words(reason);
            self.workload
                .change(move |record| {
                    if record.incarnation == incarnation {
                        record.last_exit = Some(exit);
                    }
                    Ok::<_, io::Error>(())
                })
                .await?;
            return self.fail(record, reason).await;
        }
        let pause = pause(policy, streak);
        let detail = format!(
            "{what}; restart {} of {} follows in {} ms",
            streak + 1,
            policy.max_attempts,
            pause.as_millis()
        );
        self.workload.say(&detail);
        self.resume_at = Some(Instant::now() + pause);
        self.workload
            .change(move |record| {
                record.launched = None;
                if record.wanted == Wanted::Running && record.incarnation == incarnation {
                    record.last_exit = Some(exit);
                    record.streak = streak + 1;
                    record.attempts += 1;
                    record.enter(WorkloadPhase::Starting, Some(detail));
                }
                Ok::<_, io::Error>(())
            })
            .await
    }

    async fn start_took_too_long(&mut self, record: &Record) -> io::Result<()> {
        let within = format!("within {} ms", record.spec.start_timeout_ms);
        let reason = match record.services.first() {
            Some(service) => format!(
                "nothing accepted connections on the local port {} of its service {:?} {within}: the program must \
                 listen on the port that PORT names",
                service.local_port, service.name
            ),
            None => format!("it was not started {within}"),
        };
        let reason = self.with_last_words(reason);
        self.fail(record, reason).await
    }

    /// Ends this incarnation for good.
    async fn fail(&mut self, record: &Record, reason: String) -> io::Result<()> {
        self.workload.say(&format!("failed: {reason}"));
        let incarnation = record.incarnation;
        self.workload
            .change(move |record| {
                record.launched = None;
                if record.wanted == Wanted::Running && record.incarnation == incarnation {
                    record.enter(WorkloadPhase::Failed, Some(reason));
                }
                Ok::<_, io::Error>(())
            })
            .await
    }

    fn with_last_words(&self, reason: String) -> String {
        let words = last_words(&self.workload.folder.log(), LAST_LINES, LAST_BYTES);
        if words.is_empty() { reason } else { format!("{reason}. Its last output:\n{}", words.join("\n")) }
    }

    // Ending.

    /// Ends the run: SIGTERM, SIGKILL when the grace has passed, and all that is left of it.
    async fn end_run(&mut self) -> io::Result<()> {
        let Some(mut run) = self.run.take() else { return Ok(()) };
        let begun = Instant::now();
        let mut asked = None;
        faults::point("daemon.before_kill");
        self.ask_to_end(&run, &mut asked);
        faults::point("daemon.after_kill");
        loop {
            // Read anew each time: a later request may be more impatient.
            let record = self.changes.borrow_and_update().clone();
            let stopping = *self.life.borrow() == Life::Stopping;
            let grace = if stopping { DEFAULT_GRACE_MS } else { record.grace_ms };
            let Some(left) =
                Duration::from_millis(grace).checked_sub(begun.elapsed()).filter(|left| !left.is_zero())
            else {
                break;
            };
            tokio::select! {
                () = run.ended() => return self.nothing_left().await,
                _ = self.changes.changed() => {}
                // A set-up command may have been followed by the next one just before it was asked.
                () = sleep(left.min(Duration::from_millis(100))) => self.ask_to_end(&run, &mut asked),
            }
        }
        let killing = Instant::now();
        loop {
            run.kill();
            if killing.elapsed() > PATIENCE {
                tracing::warn!(deployment.id = %self.workload.id, process.pid = run.shim_pid(), "the shim doesn't end: it is killed");
                run.kill_shim();
            }
            tokio::select! {
                () = run.ended() => return self.nothing_left().await,
                () = sleep(Duration::from_millis(20)) => {}
            }
        }
    }

    /// Where it can't be asked (the disk is full), it is killed when the grace has passed.
    fn ask_to_end(&self, run: &Run, asked: &mut Option<ProcessId>) {
        if let Err(error) = run.ask_to_end(asked) {
            tracing::warn!(deployment.id = %self.workload.id, error = %error, "the run can't be asked to end");
        }
    }

    /// Executions end with what they were run in, and so does whatever got away.
    async fn nothing_left(&mut self) -> io::Result<()> {
        self.workload.executions.end_all().await;
        self.sweep().await
    }

    /// Kills what bears the workload's mark or is in its group, until nothing does.
    async fn sweep(&self) -> io::Result<()> {
        let workload = self.workload.clone();
        let sweep = tokio::task::spawn_blocking(move || sweep(&workload));
        sweep.await.map_err(io::Error::other)?
    }

    async fn stopped(&mut self) -> io::Result<()> {
        self.nothing_left().await?;
        self.resume_at = None;
        let note = match self.workload.record().launched {
            Some(launch) => Run::end(&self.workload.folder.run(), launch.run)?,
            None => None,
        };
        let stopped = self.workload.change(move |record| {
            if record.wanted == Wanted::Stopped {
                if let Some(Outcome::Ended(exit)) = note.map(|note| note.outcome) {
                    record.last_exit = Some(exit);
                }
                record.launched = None;
                record.enter(WorkloadPhase::Stopped, None);
            }
            Ok::<_, io::Error>(())
        });
        stopped.await?;
        self.workload.say("stopped");
        Ok(())
    }

    async fn remove(&mut self) -> io::Result<()> {
        self.nothing_left().await?;
        self.resume_at = None;
        self.workload.executions.forget();
        *self.workload.log.lock() = None;
        let workload = self.workload.clone();
        let removed = tokio::task::spawn_blocking(move || files::remove(&workload.folder));
        removed.await.map_err(io::Error::other)??;
        let user = self.workload.record().user;
        self.workload
            .change(|record| {
                if record.wanted == Wanted::Destroyed {
                    *record = Record {
                        generation: record.generation,
                        incarnation: record.incarnation,
                        operation: record.operation,
                        started: record.started,
                        wanted: Wanted::Destroyed,
                        phase: WorkloadPhase::Destroyed,
                        since_ms: now_ms(),
                        runs: record.runs,
                        ..Record::unseen(record.deployment)
                    };
                } else {
                    // Wanted again meanwhile, by a later operation: it begins from nothing.
                    record.launched = None;
                    record.unpacked = None;
                }
                Ok::<_, io::Error>(())
            })
            .await?;
        if let Some(user) = user
            && self.workload.record().is_tombstone()
        {
            self.workload.context.users.release(user);
        }
        tracing::info!(deployment.id = %self.workload.id, "removed");
        Ok(())
    }

    /// The daemon ends and takes its workloads with it; the next one starts them again.
    async fn leave(&mut self, record: &Record) -> io::Result<()> {
        if self.run.is_some() {
            self.end_run().await?;
        } else if record.launched.is_some() {
            self.sweep().await?;
        }
        self.workload.executions.end_all().await;
        self.workload
            .change(|record| {
                if record.wanted == Wanted::Running && record.phase != WorkloadPhase::Failed {
                    record.launched = None;
                    record.streak = 0;
                    record.enter(
                        WorkloadPhase::Starting,
                        Some("it ended with the daemon, and starts again with it".to_owned()),
                    );
                }
                Ok::<_, io::Error>(())
            })
            .await
    }
}

fn deadline(record: &Record) -> Instant {
    Instant::now() + Duration::from_millis(record.start_deadline_ms().saturating_sub(now_ms()))
}

fn pause(policy: &RestartPolicy, streak: u32) -> Duration {
    let factor = 1_u64.checked_shl(streak).unwrap_or(u64::MAX);
    Duration::from_millis(policy.backoff_ms.saturating_mul(factor).min(policy.max_backoff_ms))
}

fn told(exit: &Exit) -> String {
    match exit {
        Exit::Code(code) => format!("ended with exit code {code}"),
        Exit::Signal(signal) => format!("was ended by {signal}"),
        Exit::TimedOut => "took too long".to_owned(),
        Exit::Unknown => "ended while nobody watched".to_owned(),
    }
}

/// Returns once the run's command runs and the default service accepts connections.
async fn is_up(workload: &Workload, record: &Record, number: u64) {
    let mut pause = LOOK.0;
    loop {
        let note = run::running(&workload.folder.run());
        if note.is_some_and(|note| note.is_command && note.run == number) {
            match record.services.first() {
                None => return,
                Some(service) => {
                    if connect(service.local_port).await.is_ok() {
                        return;
                    }
                }
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(LOOK.1);
    }
}

/// A connection to a local port. Programs that are told to listen on `localhost` choose either address.
pub async fn connect(port: u16) -> io::Result<TcpStream> {
    let addresses =
        [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))];
    timeout(CONNECT, TcpStream::connect(&addresses[..])).await?
}

/// Starts the shim of the record's run. None where another one has the folder.
fn launch(workload: &Workload, record: &Record) -> io::Result<Option<Run>> {
    let Some(launch) = record.launched else { return Ok(None) };
    let (context, folder) = (&workload.context, &workload.folder);
    let key = spec::setup_key(&record.spec);
    let is_set_up = std::fs::read_to_string(folder.setup_done()).is_ok_and(|done| done == key);
    let has_setup = !is_set_up && !record.spec.setup.is_empty();
    let (cwd, shown_cwd) = spec::cwd(folder, record.spec.cwd.as_deref());
    let plan = Plan {
        run: launch.run,
        incarnation: record.incarnation,
        setup: if has_setup { record.spec.setup.clone() } else { Vec::new() },
        setup_done: has_setup.then(|| (folder.setup_done(), key)),
        command: record.spec.command.clone(),
        cwd,
        shown_cwd,
        env: spec::environment(record, folder, &context.path, &std::collections::BTreeMap::new()),
        user: record.user,
        cgroup: context.cgroups.existing(&workload.id.to_string()),
        output: Output::Log(folder.log()),
        timeout_ms: None,
    };
    faults::point("daemon.before_spawn");
    let run = Run::start(&context.program, folder.run(), &plan)?;
    faults::point("daemon.after_spawn");
    Ok(run)
}

fn sweep(workload: &Workload) -> io::Result<()> {
    let mark = format!("{}={}", spec::MARK, workload.folder.path().display());
    let name = workload.id.to_string();
    let begun = std::time::Instant::now();
    loop {
        let group = workload.context.cgroups.existing(&name);
        let mut left = process::with_environment(&mark);
        if let Some(group) = &group {
            left.extend(cgroup::processes(group));
            cgroup::kill(group);
        }
        if left.is_empty() {
            if let Some(group) = &group {
                cgroup::remove(group);
            }
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(30) {
            let pids: Vec<String> = left.iter().map(u32::to_string).collect();
            return Err(io::Error::other(format!("the processes {} don't end on SIGKILL", pids.join(", "))));
        }
        left.into_iter().for_each(process::kill);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Removes the state of what is gone, where no late call can be under way any more.
pub fn is_forgettable(record: &Record) -> bool {
    const KEEP_MS: u64 = 30 * 24 * 3600 * 1000;
    record.is_tombstone() && now_ms().saturating_sub(record.since_ms) > KEEP_MS
}

/// Removes the durable state.
pub fn forget(workload: &Workload) -> io::Result<()> {
    durable::remove(&workload.context.data.state(workload.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let policy = RestartPolicy { max_attempts: 9, backoff_ms: 200, max_backoff_ms: 1500 };
        let pauses: Vec<u128> = (0..5).map(|streak| pause(&policy, streak).as_millis()).collect();
        assert_eq!(pauses, [200, 400, 800, 1500, 1500]);
        assert_eq!(pause(&policy, 64).as_millis(), 1500);
    }
}
