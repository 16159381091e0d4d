//! Whether an archive stays in its own folder when it is unpacked, and how much it unpacks to.
//!
//! Read once, from its beginning to its end, in bounded memory whatever it says about itself.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use tar::EntryType;

use crate::{ArtifactError, Limits};

/// Bytes from one entry's content to the next one's: its header, and what the format puts before it for
/// long names. The reader keeps those in memory, so they are bounded.
const HEADER_BYTES: u64 = 256 << 10;
/// The longest path of an entry or target of a link, in bytes (Linux's `PATH_MAX`).
const PATH_BYTES: usize = 4096;
/// Bytes of all symbolic links' names and targets, which are remembered.
const LINK_BYTES: usize = 32 << 20;
/// The largest window that a decoder has to keep: 128 MiB, zstd's own default for streams.
const WINDOW_LOG_MAX: u32 = 27;
/// Links followed before a path is called a loop (Linux: 40).
const LINKS_FOLLOWED: u32 = 40;
/// Steps in following all of them: far more than real projects need, few enough to take seconds.
const STEPS: u64 = 10_000_000;

pub(crate) fn check(path: &Path, limits: &Limits) -> Result<(), ArtifactError> {
    let file = std::fs::File::open(path).map_err(ArtifactError::io("reading an archive"))?;
    check_reader(file, limits)
}

fn check_reader(reader: impl Read, limits: &Limits) -> Result<(), ArtifactError> {
    let broken = |error: io::Error| not_an_archive(&error);
    let mut decoder = zstd::Decoder::new(reader).map_err(broken)?;
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(broken)?;
    let budget = Budget { header: Rc::new(Cell::new(HEADER_BYTES)), in_content: Rc::new(Cell::new(false)) };
    let guard = Guard { inner: decoder, budget: budget.clone() };
    let mut archive = tar::Archive::new(guard);
    let mut links = Links::default();
    let mut entries = 0;
    let mut unpacked = 0_u64;
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        entries += 1;
        if entries > limits.entries {
            return Err(ArtifactError::TooLarge { what: "has too many entries", limit: limits.entries });
        }
        unpacked = unpacked.saturating_add(entry.size());
        if unpacked > limits.unpacked_bytes {
            return Err(ArtifactError::TooLarge {
                what: "unpacks to too many bytes",
                limit: limits.unpacked_bytes,
            });
        }
        links.admit(&entry)?;
        // To its end, so that what comes before the next entry is headers only.
        budget.in_content.set(true);
        io::copy(&mut entry, &mut io::sink()).map_err(broken)?;
        budget.in_content.set(false);
        budget.header.set(HEADER_BYTES);
    }
    if entries == 0 {
        return Err(refused("it has no entries".to_owned()));
    }
    links.resolve()?;
    // What follows the archive's end: padding to the tar record's size, and the decoder's own check sum.
    let mut rest = archive.into_inner();
    rest.budget.header.set(HEADER_BYTES);
    io::copy(&mut rest, &mut io::sink()).map_err(broken)?;
    Ok(())
}

fn refused(reason: String) -> ArtifactError {
    ArtifactError::InvalidArchive { reason }
}

fn not_an_archive(error: &io::Error) -> ArtifactError {
    let reason = if error.kind() == io::ErrorKind::UnexpectedEof {
        "it is cut off before its end".to_owned()
    } else {
        format!("it is not a tar archive compressed with zstd ({error})")
    };
    refused(reason)
}

/// How many bytes may still be read outside of entries' contents.
#[derive(Clone)]
struct Budget {
    header: Rc<Cell<u64>>,
    in_content: Rc<Cell<bool>>,
}

/// Fails where an archive's headers are longer than the budget.
struct Guard<R> {
    inner: R,
    budget: Budget,
}

impl<R: Read> Read for Guard<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        if !self.budget.in_content.get() {
            let left = self.budget.header.get().checked_sub(read as u64);
            self.budget.header.set(left.ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("more than {HEADER_BYTES} bytes of headers in a row"),
                )
            })?);
        }
        Ok(read)
    }
}

/// The symbolic links of the archive, so that none leads out of it, by itself or through others.
#[derive(Default)]
struct Links {
    targets: HashMap<PathBuf, PathBuf>,
    bytes: usize,
}

impl Links {
    fn admit<R: Read>(&mut self, entry: &tar::Entry<'_, R>) -> Result<(), ArtifactError> {
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let raw = entry.path_bytes();
        let name = String::from_utf8_lossy(&raw).into_owned();
        let path = entry
            .path()
            .map_err(|error| refused(format!("the entry {name:?} has no usable path ({error})")))?;
        let path = inside(&name, &path)?;
        self.not_through_a_link(&name, &path)?;
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse | EntryType::Directory => {
                if kind != EntryType::Directory && path.as_os_str().is_empty() {
                    return Err(refused(format!("the entry {name:?} is a file without a name")));
                }
                if self.targets.contains_key(&path) {
                    return Err(refused(format!(
                        "the entry {name:?} has the name of a symbolic link before it"
                    )));
                }
                Ok(())
            }
            EntryType::Symlink => self.admit_symlink(name, path, target(entry)?),
            EntryType::Link => self.admit_hard_link(&name, &target(entry)?),
            EntryType::Block | EntryType::Char => Err(refused(format!("the entry {name:?} is a device"))),
            EntryType::Fifo => Err(refused(format!("the entry {name:?} is a named pipe"))),
            other => Err(refused(format!(
                "the entry {name:?} is of the unknown kind {:?}",
                char::from(other.as_byte())
            ))),
        }
    }

    fn admit_symlink(&mut self, name: String, path: PathBuf, target: PathBuf) -> Result<(), ArtifactError> {
        if path.as_os_str().is_empty() {
            return Err(refused(format!("the entry {name:?} replaces the archive's own folder by a link")));
        }
        if target.as_os_str().is_empty() {
            return Err(refused(format!("the symbolic link {name:?} leads nowhere")));
        }
        self.bytes += path.as_os_str().len() + target.as_os_str().len();
        if self.bytes > LINK_BYTES {
            return Err(ArtifactError::TooLarge {
                what: "has too many bytes in symbolic links",
                limit: LINK_BYTES as u64,
            });
        }
        if self.targets.insert(path, target).is_some() {
            return Err(refused(format!("the symbolic link {name:?} is there twice")));
        }
        Ok(())
    }

    fn admit_hard_link(&self, name: &str, target: &Path) -> Result<(), ArtifactError> {
        let leads_out =
            |_| refused(format!("the hard link {name:?} leads out of the archive, to {target:?}"));
        let target = inside(name, target).map_err(leads_out)?;
        self.not_through_a_link(name, &target).map_err(leads_out)?;
        if self.targets.contains_key(&target) {
            // A relative link means another thing in another folder.
            return Err(refused(format!("the hard link {name:?} names a symbolic link, {target:?}")));
        }
        Ok(())
    }

    /// An entry that is written through a link before it might be written anywhere.
    fn not_through_a_link(&self, name: &str, path: &Path) -> Result<(), ArtifactError> {
        if self.targets.is_empty() {
            return Ok(());
        }
        match path.ancestors().skip(1).find(|folder| self.targets.contains_key(*folder)) {
            Some(link) => Err(refused(format!("the entry {name:?} lies behind the symbolic link {link:?}"))),
            None => Ok(()),
        }
    }

    /// With all entries known: follows each link as the kernel would.
    fn resolve(&self) -> Result<(), ArtifactError> {
        let mut walk = Walk { followed: 0, steps: 0 };
        for (link, target) in &self.targets {
            walk.followed = 0;
            let folder = link.parent().unwrap_or(Path::new("")).to_owned();
            if self.follow(folder, target, &mut walk).is_none() {
                return Err(refused(format!(
                    "the symbolic link {link:?} leads out of the archive, to {target:?}"
                )));
            }
            if walk.steps > STEPS {
                return Err(refused(
                    "its symbolic links lead through each other too often to be checked".to_owned(),
                ));
            }
        }
        Ok(())
    }

    /// Where `path`, seen from `folder`, leads. None: out of the archive. A loop leads nowhere, which is
    /// inside.
    fn follow(&self, mut folder: PathBuf, path: &Path, walk: &mut Walk) -> Option<PathBuf> {
        for component in path.components() {
            walk.steps += 1;
            match component {
                Component::CurDir => {}
                Component::ParentDir => {
                    if !folder.pop() {
                        return None;
                    }
                }
                Component::Normal(part) => {
                    folder.push(part);
                    if let Some(target) = self.targets.get(&folder) {
                        walk.followed += 1;
                        if walk.followed > LINKS_FOLLOWED {
                            return Some(PathBuf::new());
                        }
                        folder.pop();
                        folder = self.follow(folder, target, walk)?;
                    }
                }
                Component::RootDir | Component::Prefix(_) => return None,
            }
        }
        Some(folder)
    }
}

/// How far links were followed: for one of them, and for all.
struct Walk {
    followed: u32,
    steps: u64,
}

fn target<R: Read>(entry: &tar::Entry<'_, R>) -> Result<PathBuf, ArtifactError> {
    let target = entry.link_name().ok().flatten();
    let target =
        target.ok_or_else(|| refused(format!("the link {:?} has no usable target", entry_name(entry))))?;
    if target.as_os_str().len() > PATH_BYTES {
        return Err(refused(format!(
            "the target of the link {:?} is longer than {PATH_BYTES} bytes",
            entry_name(entry)
        )));
    }
    Ok(target.into_owned())
}

fn entry_name<R: Read>(entry: &tar::Entry<'_, R>) -> String {
    String::from_utf8_lossy(&entry.path_bytes()).into_owned()
}

/// The path without `.`, where it stays below the archive's own folder.
fn inside(name: &str, path: &Path) -> Result<PathBuf, ArtifactError> {
    if path.as_os_str().len() > PATH_BYTES {
        let start: String = name.chars().take(60).collect();
        return Err(refused(format!("the path of the entry {start:?}… is longer than {PATH_BYTES} bytes")));
    }
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => normal.push(part),
            Component::CurDir => {}
            Component::ParentDir => return Err(refused(format!("the entry {name:?} has `..` in its path"))),
            Component::RootDir | Component::Prefix(_) => {
                return Err(refused(format!("the entry {name:?} has an absolute path")));
            }
        }
    }
    Ok(normal)
}
