//! What workloads print, on disk with a bound: the two newest files of 8 MiB each, a JSON line a line.
//!
//! Several processes write (the shim that holds a workload, the daemon for its own words), one at a
//! time under a lock. File names count up, so a reader knows what follows what.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use agent_api::{LogLine, LogQuery};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::clock::now_ms;
use crate::watch::FolderWatch;

/// Bytes of one of the two files.
pub const FILE_BYTES: u64 = 8 << 20;
/// Bytes of a printed line; a longer one becomes several.
const MAX_LINE: usize = 16 * 1024;
/// Lines that one query gives at most, before it follows.
const MAX_LINES: u32 = 100_000;
/// Bytes that one look at the log gives at most.
const CHUNK: u64 = 1 << 20;

/// Origin of the daemon's own words.
pub const HYTHE: &str = "hythe";

/// Appends lines.
#[derive(Debug)]
pub struct LogWriter {
    folder: PathBuf,
    lock: File,
    current: Option<(u64, File)>,
}

impl LogWriter {
    /// Makes the folder where needed.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(folder.join("lock"))?;
        Ok(Self { folder: folder.to_owned(), lock, current: None })
    }

    /// Appends lines of one origin, all with the present time.
    pub fn append(&mut self, origin: &str, lines: impl IntoIterator<Item = String>) -> io::Result<()> {
        let at_ms = now_ms();
        let mut bytes = Vec::new();
        for text in lines {
            serde_json::to_writer(&mut bytes, &LogLine { at_ms, origin: origin.to_owned(), text })?;
            bytes.push(b'\n');
        }
        if bytes.is_empty() {
            return Ok(());
        }
        self.lock.lock()?;
        let written = self.append_locked(&bytes);
        self.lock.unlock()?;
        written
    }

    fn append_locked(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (mut number, mut file) = match self.current.take() {
            // Unless another writer has begun a new one.
            Some((number, file)) if !path(&self.folder, number + 1).exists() => (number, file),
            _ => {
                let number = numbers(&self.folder)?.pop().unwrap_or(1);
                (number, open(&self.folder, number)?)
            }
        };
        if file.metadata()?.len() + bytes.len() as u64 > FILE_BYTES {
            number += 1;
            file = open(&self.folder, number)?;
            for old in numbers(&self.folder)? {
                if old + 1 < number {
                    fs::remove_file(path(&self.folder, old))?;
                }
            }
        }
        file.write_all(bytes)?;
        self.current = Some((number, file));
        Ok(())
    }
}

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:010}.log"))
}

/// Opened for appending; what a crash cut off gets its end, so that it spoils no later line.
fn open(folder: &Path, number: u64) -> io::Result<File> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path(folder, number))?;
    let length = file.metadata()?.len();
    let mut last = [b'\n'];
    if length > 0 {
        file.read_exact_at(&mut last, length - 1)?;
    }
    if last != *b"\n" {
        file.write_all(b"\n")?;
    }
    Ok(file)
}

/// Numbers of the files, ascending.
fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let names = fs::read_dir(folder)?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut numbers: Vec<u64> = names.filter_map(|name| name.strip_suffix(".log")?.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Cuts what comes in pieces into lines.
#[derive(Debug, Default)]
pub struct LineCutter {
    partial: Vec<u8>,
}

impl LineCutter {
    /// The lines that are whole now.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for part in piece.chunks(MAX_LINE) {
                if self.partial.len() + part.len() > MAX_LINE {
                    lines.extend(self.finish());
                }
                self.partial.extend_from_slice(part);
            }
            if self.partial.ends_with(b"\n") {
                lines.extend(self.finish());
            }
        }
        lines
    }

    /// Whether something waits for its line's end.
    pub fn has_partial(&self) -> bool {
        !self.partial.is_empty()
    }

    /// What waits, as a line.
    pub fn finish(&mut self) -> Option<String> {
        if self.partial.is_empty() {
            return None;
        }
        let line = std::mem::take(&mut self.partial);
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        Some(String::from_utf8_lossy(line).into_owned())
    }
}

/// A place in the log.
#[derive(Debug, Clone, Copy)]
struct Position {
    number: u64,
    offset: u64,
}

/// The newest lines as JSON, and where the log goes on.
fn tail(folder: &Path, query: &LogQuery) -> io::Result<(VecDeque<Vec<u8>>, Position)> {
    let count = query.lines.min(MAX_LINES) as usize;
    let mut lines = VecDeque::with_capacity(count.min(1024));
    let mut position = Position { number: 1, offset: 0 };
    for number in numbers(folder)? {
        let Ok(file) = File::open(path(folder, number)) else { continue };
        let mut reader = BufReader::with_capacity(64 * 1024, file);
        let mut offset = 0;
        loop {
            let mut line = Vec::new();
            reader.read_until(b'\n', &mut line)?;
            if !line.ends_with(b"\n") {
                break;
            }
            offset += line.len() as u64;
            if count == 0 || !is_wanted(&line, query.since_ms) {
                continue;
            }
            if lines.len() == count {
                lines.pop_front();
            }
            lines.push_back(line);
        }
        position = Position { number, offset };
    }
    Ok((lines, position))
}

fn is_wanted(line: &[u8], since_ms: Option<u64>) -> bool {
    match since_ms {
        None => line.starts_with(b"{") && line.ends_with(b"}\n"),
        Some(since) => serde_json::from_slice::<LogLine>(line).is_ok_and(|line| line.at_ms >= since),
    }
}

/// The newest lines of the workload itself, for a person: at most `count`, at most `bytes` long.
pub fn last_words(folder: &Path, count: u32, bytes: usize) -> Vec<String> {
    let query = LogQuery { lines: count * 4, follow: false, since_ms: None };
    let Ok((lines, _)) = tail(folder, &query) else { return Vec::new() };
    let lines = lines.iter().rev().filter_map(|line| serde_json::from_slice::<LogLine>(line).ok());
    let mut left = bytes;
    let mut words: Vec<String> = lines
        .filter(|line| line.origin != HYTHE && !line.text.trim().is_empty())
        .map(|line| line.text)
        .take(count as usize)
        .take_while(|text| {
            let fits = text.len() <= left;
            left = left.saturating_sub(text.len());
            fits
        })
        .collect();
    words.reverse();
    words
}

/// Sends what the query asks for, whole lines in each piece. Ends after the last line, or, where it
/// follows, when the log is removed or nobody listens.
pub async fn send(folder: PathBuf, query: LogQuery, to: mpsc::Sender<Bytes>) {
    let mut watch = query.follow.then(|| FolderWatch::new(&folder));
    let (place, asked) = (folder.clone(), query.clone());
    let Ok(Ok((lines, mut position))) = tokio::task::spawn_blocking(move || tail(&place, &asked)).await
    else {
        return;
    };
    let mut piece = Vec::new();
    for line in lines {
        piece.extend_from_slice(&line);
        if piece.len() as u64 >= CHUNK && to.send(Bytes::from(std::mem::take(&mut piece))).await.is_err() {
            return;
        }
    }
    if !piece.is_empty() && to.send(piece.into()).await.is_err() {
        return;
    }
    let Some(watch) = &mut watch else { return };
    loop {
        let place = folder.clone();
        let Ok(Ok((bytes, next))) = tokio::task::spawn_blocking(move || read_on(&place, position)).await
        else {
            return;
        };
        let moved = next.number != position.number;
        position = next;
        if !bytes.is_empty() {
            if to.send(bytes.into()).await.is_err() {
                return;
            }
        } else if !moved {
            tokio::select! {
                () = watch.changed() => {}
                () = to.closed() => return,
            }
        }
    }
}

/// Whole lines from the place on, and the next place. An error: the log is gone.
fn read_on(folder: &Path, from: Position) -> io::Result<(Vec<u8>, Position)> {
    let existing = numbers(folder)?;
    let Ok(mut file) = File::open(path(folder, from.number)) else {
        let Some(next) = existing.into_iter().find(|number| *number > from.number) else {
            return Ok((Vec::new(), from));
        };
        let text = "some lines are missing here: the log grew faster than it was read".to_owned();
        let mut line = serde_json::to_vec(&LogLine { at_ms: now_ms(), origin: HYTHE.to_owned(), text })?;
        line.push(b'\n');
        return Ok((line, Position { number: next, offset: 0 }));
    };
    file.seek(SeekFrom::Start(from.offset))?;
    let mut bytes = Vec::new();
    file.take(CHUNK).read_to_end(&mut bytes)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if whole == 0 && existing.contains(&(from.number + 1)) {
        return Ok((Vec::new(), Position { number: from.number + 1, offset: 0 }));
    }
    bytes.truncate(whole);
    Ok((bytes, Position { offset: from.offset + whole as u64, ..from }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(bytes: &[u8]) -> Vec<String> {
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice::<LogLine>(line).unwrap().text).collect()
    }

    #[test]
    fn lines_are_cut_wherever_the_pieces_end() {
        let mut cutter = LineCutter::default();
        assert_eq!(cutter.push(b"a\r\nb"), ["a"]);
        assert_eq!(cutter.push(b"c\n\n\xffd"), ["bc", ""]);
        assert!(cutter.has_partial());
        assert_eq!(cutter.finish().unwrap(), "\u{fffd}d");
        let long = cutter.push(&[b'x'; MAX_LINE * 2 + 1]);
        assert_eq!(long.iter().map(String::len).collect::<Vec<_>>(), [MAX_LINE, MAX_LINE]);
    }

    #[test]
    fn the_log_is_bounded_and_keeps_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let (mut one, mut other) =
            (LogWriter::open(dir.path()).unwrap(), LogWriter::open(dir.path()).unwrap());
        let text = "x".repeat(MAX_LINE);
        for number in 0..2000 {
            let writer = if number % 2 == 0 { &mut one } else { &mut other };
            writer.append("stdout", [format!("{number} {text}")]).unwrap();
        }
        let bytes: u64 =
            fs::read_dir(dir.path()).unwrap().flatten().map(|e| e.metadata().unwrap().len()).sum();
        assert!(bytes <= 2 * FILE_BYTES, "{bytes}");
        let query = LogQuery { lines: 3, follow: false, since_ms: None };
        let (lines, _) = tail(dir.path(), &query).unwrap();
        let numbers: Vec<_> = texts(&Vec::from(lines).concat()).iter().map(|t| t[..4].to_owned()).collect();
        assert_eq!(numbers, ["1997", "1998", "1999"]);
    }

    #[test]
    fn reading_on_crosses_files_and_says_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(path(dir.path(), 1), "{\"atMs\":1,\"origin\":\"stdout\",\"text\":\"a\"}\ncut").unwrap();
        let mut writer = LogWriter::open(dir.path()).unwrap();
        writer.append("stdout", ["b".to_owned()]).unwrap();
        let start = Position { number: 1, offset: 0 };
        let (bytes, end) = read_on(dir.path(), start).unwrap();
        assert!(bytes.ends_with(b"\"b\"}\n"));
        fs::write(path(dir.path(), 2), "{\"atMs\":1,\"origin\":\"stdout\",\"text\":\"c\"}\n").unwrap();
        let (nothing, next) = read_on(dir.path(), end).unwrap();
        assert!(nothing.is_empty());
        assert_eq!(texts(&read_on(dir.path(), next).unwrap().0), ["c"]);
        fs::remove_file(path(dir.path(), 1)).unwrap();
        let (note, next) = read_on(dir.path(), start).unwrap();
        assert!(texts(&note)[0].contains("some lines are missing"));
        assert_eq!(texts(&read_on(dir.path(), next).unwrap().0), ["c"]);
    }

    #[test]
    fn last_words_leave_out_the_daemons() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = LogWriter::open(dir.path()).unwrap();
        writer.append("stderr", ["why".to_owned(), "  ".to_owned()]).unwrap();
        writer.append(HYTHE, ["it ended".to_owned()]).unwrap();
        assert_eq!(last_words(dir.path(), 5, 100), ["why"]);
    }
}
