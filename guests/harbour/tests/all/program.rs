//! Runs the program in a folder of its own.

use std::io::{BufRead as _, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// A running harbour. Killed when dropped.
pub struct Program {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// `127.0.0.1:<port>`
    pub address: String,
}

impl Program {
    /// Starts it on a free port, with its data in the folder, and waits until it is open.
    pub fn start(folder: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_harbour"))
            .current_dir(folder)
            .env("PORT", "0")
            .env("HARBOUR_PUBLIC", Path::new(env!("CARGO_MANIFEST_DIR")).join("public"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().expect("it says where it is open").unwrap();
        let address = first.rsplit_once("http://").expect("the line ends with its address").1.to_owned();
        Self { child, lines, address }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end; how it ended and what it printed since it was open.
    pub fn ended(mut self) -> (ExitStatus, Vec<String>) {
        let lines = self.lines.by_ref().map(Result::unwrap).collect();
        (self.child.wait().unwrap(), lines)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Where it has ended by itself there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
