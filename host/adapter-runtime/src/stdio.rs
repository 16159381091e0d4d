//! An adapter's log: what it says through `host.log` and what it prints, line by line and bounded.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::host::{DeploymentHost, Level};

/// Bytes of a line; a longer one is several.
const MAX_LINE: usize = 4096;
/// Printed lines that are kept to explain a trap.
const LAST_WORDS: usize = 4;

/// Where lines go.
pub(crate) enum Sink {
    Host(Arc<dyn DeploymentHost>),
    /// No deployment: `describe`.
    Trace {
        adapter: Arc<str>,
    },
}

/// One call's log.
pub(crate) struct Log {
    sink: Sink,
    left: u32,
    dropped: u64,
    last: VecDeque<String>,
}

impl Log {
    pub(crate) fn new(sink: Sink, lines: u32) -> Self {
        Self { sink, left: lines, dropped: 0, last: VecDeque::new() }
    }

    /// One line, unless the call has used up its number.
    pub(crate) fn line(&mut self, level: Level, message: &str, fields: &[(String, String)]) {
        if self.left == 0 {
            self.dropped += 1;
            return;
        }
        self.left -= 1;
        self.emit(level, cut(message, MAX_LINE), fields);
    }

    fn emit(&self, level: Level, message: &str, fields: &[(String, String)]) {
        match &self.sink {
            Sink::Host(host) => host.log(level, message, fields),
            Sink::Trace { adapter } => tracing::debug!(adapter = %adapter, ?fields, "{message}"),
        }
    }

    fn printed(&mut self, origin: &'static str, line: &str) {
        if !line.trim().is_empty() {
            if self.last.len() == LAST_WORDS {
                self.last.pop_front();
            }
            self.last.push_back(cut(line.trim(), 500).to_owned());
        }
        self.line(Level::Info, line, &[("stream".to_owned(), origin.to_owned())]);
    }

    /// The last lines that were printed, for a message about a trap.
    pub(crate) fn last_words(&self) -> Option<String> {
        let words: Vec<&str> = self
            .last
            .iter()
            .map(String::as_str)
            .filter(|line| !line.starts_with("note: run with `RUST_BACKTRACE"))
            .collect();
        (!words.is_empty()).then(|| words.join(" "))
    }

    /// Says how much was not said.
    pub(crate) fn close(&mut self) {
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            let message = format!("{dropped} more lines of this call's log were dropped");
            self.emit(Level::Warn, &message, &[]);
        }
    }
}

/// The beginning of a text, at most so many bytes, whole characters.
pub(crate) fn cut(text: &str, bytes: usize) -> &str {
    if text.len() <= bytes {
        return text;
    }
    let mut end = bytes;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The lock; a panic while it was held leaves nothing half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Standard output or error of a guest.
#[derive(Clone)]
pub(crate) struct Lines {
    origin: &'static str,
    log: Arc<Mutex<Log>>,
    /// The line that has not ended yet. Shared by all handles of the stream.
    partial: Arc<Mutex<Vec<u8>>>,
}

impl Lines {
    pub(crate) fn new(origin: &'static str, log: Arc<Mutex<Log>>) -> Self {
        Self { origin, log, partial: Arc::default() }
    }

    fn push(&self, bytes: &[u8]) {
        let mut partial = lock(&self.partial);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            partial.extend_from_slice(piece);
            if partial.ends_with(b"\n") || partial.len() >= MAX_LINE {
                self.emit(&mut partial);
            }
        }
    }

    fn emit(&self, partial: &mut Vec<u8>) {
        let text = String::from_utf8_lossy(partial);
        lock(&self.log).printed(self.origin, text.trim_end_matches(['\n', '\r']));
        partial.clear();
    }

    /// The last line, where it was not ended.
    pub(crate) fn close(&self) {
        let mut partial = lock(&self.partial);
        if !partial.is_empty() {
            self.emit(&mut partial);
        }
    }
}

impl IsTerminal for Lines {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Lines {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Pollable for Lines {
    async fn ready(&mut self) {}
}

#[async_trait::async_trait]
impl OutputStream for Lines {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 * 1024)
    }
}

impl AsyncWrite for Lines {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.push(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
