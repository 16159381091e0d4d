//! One run in its shim: started, found again, told to end.

use std::io;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use rustix::process::Signal;

use crate::durable;
use crate::process::{self, ProcessId, Watched};
use crate::shim;
use crate::shim::plan::{ChildNote, EndNote, Plan, RunFolder, ShimNote};

/// A run whose shim lives, as far as is known.
#[derive(Debug)]
pub struct Run {
    folder: RunFolder,
    pub number: u64,
    pub incarnation: u64,
    shim: ProcessId,
    /// None where it has ended already.
    watched: Option<Watched>,
    /// The shim as a child of this daemon, to be waited for. None where an earlier daemon started it.
    child: Option<Child>,
}

impl Run {
    /// Starts a shim for the plan. None where another shim has the folder: then [`find`](Self::find) it.
    pub fn start(program: &Path, folder: RunFolder, plan: &Plan) -> io::Result<Option<Self>> {
        let Some(lock) = folder.lock()? else { return Ok(None) };
        for note in [folder.shim(), folder.child(), folder.end(), folder.stop()] {
            durable::remove(&note)?;
        }
        durable::write_json(&folder.plan(), plan)?;
        let child = shim::start(program, &folder, lock)?;
        // It can't be gone before it was waited for.
        let shim =
            ProcessId::of(child.id()).ok_or_else(|| io::Error::other("/proc doesn't show the shim"))?;
        let watched = Watched::new(&shim)?;
        let (number, incarnation) = (plan.run, plan.incarnation);
        Ok(Some(Self { folder, number, incarnation, shim, watched, child: Some(child) }))
    }

    /// The run that an earlier daemon started and that still lives.
    pub async fn find(folder: RunFolder) -> io::Result<Option<Self>> {
        if !folder.path().is_dir() {
            return Ok(None);
        }
        loop {
            if folder.lock()?.is_some() {
                return Ok(None);
            }
            // The lock is held, so there is a shim: at once, or in a moment, it says which.
            if let Some(note) = durable::read_json::<ShimNote>(&folder.shim())?
                && let Some(watched) = Watched::new(&note.process)?
            {
                let ShimNote { run, incarnation, process } = note;
                let watched = Some(watched);
                return Ok(Some(Self {
                    folder,
                    number: run,
                    incarnation,
                    shim: process,
                    watched,
                    child: None,
                }));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Returns once the shim is gone. May be dropped and called again.
    pub async fn ended(&mut self) {
        if let Some(watched) = &self.watched {
            watched.ended().await;
        }
        self.watched = None;
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }

    /// How it ended; none where the shim itself was killed.
    pub fn end(folder: &RunFolder, number: u64) -> io::Result<Option<EndNote>> {
        let note = durable::read_json::<EndNote>(&folder.end())?;
        Ok(note.filter(|note| note.run == number))
    }

    /// What it runs at present.
    pub fn running(&self) -> Option<ChildNote> {
        running(&self.folder).filter(|note| note.run == self.number)
    }

    /// Asks it to end: nothing more is started, and what runs gets SIGTERM, if it did not before.
    /// `asked`: who did.
    pub fn ask_to_end(&self, asked: &mut Option<ProcessId>) -> io::Result<()> {
        if !self.folder.stop().exists() {
            std::fs::File::create(self.folder.stop())?;
        }
        let child = self.running().map(|note| note.process);
        if child != *asked {
            if let Some(child) = &child {
                child.signal_group(Signal::TERM);
            }
            *asked = child;
        }
        Ok(())
    }

    /// Kills all that the shim holds; it then ends by itself.
    pub fn kill(&self) {
        if self.shim.is_alive() {
            process::descendants(&[self.shim.pid]).into_iter().for_each(process::kill);
        }
    }

    /// Kills the shim too: the last resort. What it held must be looked for.
    pub fn kill_shim(&self) {
        self.shim.signal(Signal::KILL);
    }

    /// The shim's number.
    pub fn shim_pid(&self) -> u32 {
        self.shim.pid
    }
}

/// What the shim of this folder runs at present.
pub fn running(folder: &RunFolder) -> Option<ChildNote> {
    let note = durable::read_json::<ChildNote>(&folder.child()).ok().flatten();
    note.filter(|note| note.process.is_alive())
}
