//! Where a shim puts what its children print. It always reads on: a full disk loses output, never a
//! workload.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent_api::Exit;
use agent_api::frame::Frame;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::plan::Output;
use crate::log::{HYTHE, LineCutter, LogWriter};

/// Bytes of one execution's output that are kept.
pub const MAX_FRAMES: u64 = 64 << 20;
/// A line without an end is shown after so long.
const PARTIAL_LINE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
const BUFFER: usize = 64 * 1024;

/// Which stream something was read from.
#[derive(Debug, Clone, Copy)]
pub enum Origin {
    Stdout,
    Stderr,
    Setup,
}

/// The place for output. Clones share it.
#[derive(Clone)]
pub struct Sink {
    inner: Arc<Mutex<Inner>>,
}

enum Inner {
    Log(LogWriter),
    Frames(Frames),
}

struct Frames {
    file: File,
    length: u64,
    dropped: bool,
}

impl Sink {
    pub fn open(output: &Output) -> io::Result<Self> {
        let inner = match output {
            Output::Log(folder) => Inner::Log(LogWriter::open(folder)?),
            Output::Frames(path) => Inner::Frames(Frames::open(path)?),
        };
        Ok(Self { inner: Arc::new(Mutex::new(inner)) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shim's own words.
    pub fn say(&self, text: &str) {
        match &mut *self.lock() {
            Inner::Log(log) => drop(log.append(HYTHE, [text.to_owned()])),
            Inner::Frames(frames) => frames.append(&Frame::Stderr(format!("hythe: {text}\n").into_bytes())),
        }
    }

    /// The end of an execution. Nothing in a log.
    pub fn end(&self, exit: &Exit) {
        if let Inner::Frames(frames) = &mut *self.lock() {
            frames.end(exit);
        }
    }

    /// Reads to the end in a thread of its own; the receiver hears when that is done.
    pub fn drain(&self, from: impl Read + AsFd + Send + 'static, origin: Origin) -> Receiver<()> {
        let (done, receiver) = channel();
        let sink = self.clone();
        std::thread::spawn(move || {
            sink.read(from, origin);
            let _ = done.send(());
        });
        receiver
    }

    fn read(&self, mut from: impl Read + AsFd, origin: Origin) {
        let mut buffer = vec![0; BUFFER];
        let mut cutter = LineCutter::default();
        loop {
            if cutter.has_partial() {
                let mut waiting = [PollFd::new(&from, PollFlags::IN)];
                if matches!(poll(&mut waiting, Some(&PARTIAL_LINE)), Ok(0)) {
                    self.log(origin, cutter.finish());
                }
            }
            let count = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            let bytes = &buffer[..count];
            match &mut *self.lock() {
                Inner::Log(log) => drop(log.append(origin.name(), cutter.push(bytes))),
                Inner::Frames(frames) => frames.append(&match origin {
                    Origin::Stdout => Frame::Stdout(bytes.to_vec()),
                    Origin::Stderr | Origin::Setup => Frame::Stderr(bytes.to_vec()),
                }),
            }
        }
        self.log(origin, cutter.finish());
    }

    fn log(&self, origin: Origin, lines: impl IntoIterator<Item = String>) {
        if let Inner::Log(log) = &mut *self.lock() {
            drop(log.append(origin.name(), lines));
        }
    }
}

impl Origin {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Setup => "setup",
        }
    }
}

/// Waits until all is read; not for ever, should a pipe be held open by what nobody could kill.
pub fn wait_drained(receivers: &[Receiver<()>]) {
    for receiver in receivers {
        let _ = receiver.recv_timeout(Duration::from_secs(5));
    }
}

impl Frames {
    fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        let length = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, length, dropped: false })
    }

    fn append(&mut self, frame: &Frame) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        if self.dropped || self.length + bytes.len() as u64 > MAX_FRAMES {
            self.dropped = true;
            return;
        }
        self.write(&bytes);
    }

    fn end(&mut self, exit: &Exit) {
        let mut bytes = Vec::new();
        if self.dropped {
            let note =
                format!("hythe: the output was longer than {} MiB: the rest was dropped\n", MAX_FRAMES >> 20);
            Frame::Stderr(note.into_bytes()).encode(&mut bytes);
        }
        Frame::Exit(exit.clone()).encode(&mut bytes);
        self.write(&bytes);
    }

    /// Whole or not at all: half a frame would spoil what follows.
    fn write(&mut self, bytes: &[u8]) {
        match self.file.write_all(bytes) {
            Ok(()) => self.length += bytes.len() as u64,
            Err(_) => {
                self.dropped = true;
                let _ = self.file.set_len(self.length);
                let _ = self.file.seek(SeekFrom::Start(self.length));
            }
        }
    }
}
