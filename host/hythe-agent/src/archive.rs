//! Source archives (tar.zst): checked whole, then unpacked.
//!
//! Always holds: nothing is written outside the folder that is unpacked into, not even through a link
//! of the archive itself, since links are made last; and every link that is made leads to a place inside
//! the folder, however many other links lie on its way.
//!
//! Only files, folders and links are let in. Owners and special mode bits are not kept.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Bounds on one archive.
#[derive(Debug, Clone, Copy)]
pub struct Caps {
    pub entries: u64,
    /// Bytes of all files, unpacked.
    pub bytes: u64,
}

impl Default for Caps {
    fn default() -> Self {
        Self { entries: 500_000, bytes: 8 << 30 }
    }
}

/// Links on the way to a link's end, as the kernel counts them (`path_resolution(7)`).
const MAX_LINKS: u32 = 40;

/// Why an archive can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("the archive is not a whole tar.zst: {0}")]
    Malformed(io::Error),
    #[error("the archive's entry {path:?} {reason}")]
    Entry { path: String, reason: String },
    #[error("the archive has more than {0} entries")]
    TooMany(u64),
    #[error("the archive unpacks to more than {0} bytes")]
    TooLarge(u64),
    #[error("unpacking to {path} failed")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl ArchiveError {
    /// Whether the disk is full.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Write { source, .. } if is_disk_full(source))
    }
}

/// Whether no byte more fits, by the disk's size or by the user's quota.
pub fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Reads the whole archive and says whether it may be unpacked. Writes nothing.
pub fn check(compressed: impl Read, caps: Caps) -> Result<(), ArchiveError> {
    Reading::new(caps, None).read(compressed)
}

/// Unpacks into an existing empty folder.
pub fn unpack(compressed: impl Read, into: &Path, caps: Caps) -> Result<(), ArchiveError> {
    Reading::new(caps, Some(into)).read(compressed)
}

struct Reading<'a> {
    caps: Caps,
    into: Option<&'a Path>,
    entries: u64,
    bytes: u64,
    files: HashSet<PathBuf>,
    folders: HashSet<PathBuf>,
    links: BTreeMap<PathBuf, PathBuf>,
}

impl<'a> Reading<'a> {
    fn new(caps: Caps, into: Option<&'a Path>) -> Self {
        Self {
            caps,
            into,
            entries: 0,
            bytes: 0,
            files: HashSet::new(),
            folders: HashSet::new(),
            links: BTreeMap::new(),
        }
    }

    fn read(mut self, compressed: impl Read) -> Result<(), ArchiveError> {
        let plain = zstd::stream::read::Decoder::new(compressed).map_err(ArchiveError::Malformed)?;
        let mut archive = tar::Archive::new(Whole { inner: plain, zeros: 0, any: false });
        for entry in archive.entries().map_err(ArchiveError::Malformed)? {
            self.entry(entry.map_err(ArchiveError::Malformed)?)?;
        }
        let mut rest = archive.into_inner();
        io::copy(&mut rest, &mut io::sink()).map_err(ArchiveError::Malformed)?;
        rest.finish().map_err(ArchiveError::Malformed)?;
        for (path, target) in &self.links {
            self.check_link(path, target)?;
        }
        self.make_links()
    }

    fn entry(&mut self, mut entry: tar::Entry<'_, impl Read>) -> Result<(), ArchiveError> {
        self.entries += 1;
        if self.entries > self.caps.entries {
            return Err(ArchiveError::TooMany(self.caps.entries));
        }
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            return Ok(());
        }
        let shown = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let refuse = |reason: &str| ArchiveError::Entry { path: shown.clone(), reason: reason.to_owned() };
        let path = entry.path().map_err(ArchiveError::Malformed)?.into_owned();
        let path = inside(&path).map_err(&refuse)?;
        if let Some(link) = path.ancestors().skip(1).find(|parent| self.links.contains_key(*parent)) {
            return Err(refuse(&format!("lies behind the link {:?} of the same archive", link.display())));
        }
        if path.ancestors().skip(1).any(|parent| self.files.contains(parent)) {
            return Err(refuse("lies below what is a file in the same archive"));
        }
        if path.as_os_str().is_empty() && kind != tar::EntryType::Directory {
            return Err(refuse("has no name"));
        }
        match kind {
            tar::EntryType::Directory => {
                if self.files.contains(&path) || self.links.contains_key(&path) {
                    return Err(refuse("is a folder here and something else before"));
                }
                self.make_folder(&path)
            }
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                self.bytes = self.bytes.saturating_add(entry.size());
                if self.bytes > self.caps.bytes {
                    return Err(ArchiveError::TooLarge(self.caps.bytes));
                }
                self.not_a_folder(&path, refuse)?;
                self.links.remove(&path);
                self.files.insert(path.clone());
                self.make_file(&path, &mut entry)
            }
            tar::EntryType::Symlink => {
                let target = link_target(&entry, refuse)?;
                self.not_a_folder(&path, refuse)?;
                if self.files.remove(&path)
                    && let Some(into) = self.into
                {
                    let _ = fs::remove_file(into.join(&path));
                }
                self.links.insert(path, target);
                Ok(())
            }
            tar::EntryType::Link => {
                let target = inside(&link_target(&entry, refuse)?).map_err(&refuse)?;
                self.not_a_folder(&path, refuse)?;
                if !self.files.contains(&target) || target == path {
                    return Err(refuse(&format!(
                        "is a hard link to {:?}, which is no earlier file of the archive",
                        target.display()
                    )));
                }
                self.links.remove(&path);
                self.files.insert(path.clone());
                self.make_hard_link(&path, &target)
            }
            _ => Err(refuse(
                "is neither a file, a folder nor a link (devices, pipes and sparse files are not let in)",
            )),
        }
    }

    fn not_a_folder(&self, path: &Path, refuse: impl Fn(&str) -> ArchiveError) -> Result<(), ArchiveError> {
        if self.folders.contains(path) {
            Err(refuse("is a folder before and something else here"))
        } else {
            Ok(())
        }
    }

    /// Follows the link through the archive's own links; it must stay inside at each step.
    fn check_link(&self, path: &Path, target: &Path) -> Result<(), ArchiveError> {
        let refuse = |reason: &str| ArchiveError::Entry {
            path: path.display().to_string(),
            reason: format!("is a link to {:?}, which {reason}", target.display()),
        };
        let mut at = path.parent().unwrap_or(Path::new("")).to_owned();
        let mut ahead: Vec<PathBuf> = components(target).rev().collect();
        if target.is_absolute() {
            return Err(refuse("leads out of the archive's folder"));
        }
        let mut followed = 0;
        while let Some(step) = ahead.pop() {
            if step == Path::new("..") {
                if !at.pop() {
                    return Err(refuse("leads out of the archive's folder"));
                }
                continue;
            }
            at.push(&step);
            if let Some(next) = self.links.get(&at) {
                followed += 1;
                if followed > MAX_LINKS {
                    return Err(refuse("leads round in a circle"));
                }
                at.pop();
                if next.is_absolute() {
                    return Err(refuse("leads out of the archive's folder"));
                }
                ahead.extend(components(next).rev());
            }
        }
        Ok(())
    }

    fn make_folder(&mut self, path: &Path) -> Result<(), ArchiveError> {
        for folder in path.ancestors().filter(|folder| !folder.as_os_str().is_empty()) {
            self.folders.insert(folder.to_owned());
        }
        let Some(into) = self.into else { return Ok(()) };
        let place = into.join(path);
        fs::create_dir_all(&place).map_err(|source| ArchiveError::Write { path: place, source })
    }

    fn make_parent(&mut self, path: &Path) -> Result<(), ArchiveError> {
        match path.parent() {
            Some(parent) => self.make_folder(parent),
            None => Ok(()),
        }
    }

    fn make_file(&mut self, path: &Path, entry: &mut tar::Entry<'_, impl Read>) -> Result<(), ArchiveError> {
        self.make_parent(path)?;
        let mode = entry.header().mode().unwrap_or(0o644) & 0o777 | 0o600;
        let modified =
            entry.header().mtime().ok().map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let Some(into) = self.into else {
            // What is read to its end is whole.
            io::copy(entry, &mut io::sink()).map_err(ArchiveError::Malformed)?;
            return Ok(());
        };
        let place = into.join(path);
        let failed = |source| ArchiveError::Write { path: place.clone(), source };
        let _ = fs::remove_file(&place);
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&place).map_err(failed)?;
        copy(entry, &mut file, &place)?;
        file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed)?;
        if let Some(modified) = modified {
            file.set_modified(modified).map_err(failed)?;
        }
        Ok(())
    }

    fn make_hard_link(&mut self, path: &Path, target: &Path) -> Result<(), ArchiveError> {
        self.make_parent(path)?;
        let Some(into) = self.into else { return Ok(()) };
        let place = into.join(path);
        let _ = fs::remove_file(&place);
        fs::hard_link(into.join(target), &place).map_err(|source| ArchiveError::Write { path: place, source })
    }

    fn make_links(mut self) -> Result<(), ArchiveError> {
        let Some(into) = self.into else { return Ok(()) };
        for (path, target) in std::mem::take(&mut self.links) {
            self.make_parent(&path)?;
            let place = into.join(&path);
            std::os::unix::fs::symlink(&target, &place)
                .map_err(|source| ArchiveError::Write { path: place, source })?;
        }
        Ok(())
    }
}

/// Tells a fault of the archive (reading) from one of the disk (writing).
fn copy(from: &mut impl Read, to: &mut File, place: &Path) -> Result<(), ArchiveError> {
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let count = from.read(&mut buffer).map_err(ArchiveError::Malformed)?;
        if count == 0 {
            return Ok(());
        }
        io::Write::write_all(to, &buffer[..count])
            .map_err(|source| ArchiveError::Write { path: place.to_owned(), source })?;
    }
}

/// The path without `.`, where it stays below the folder that it is relative to.
fn inside(path: &Path) -> Result<PathBuf, &'static str> {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::CurDir => {}
            Component::ParentDir => return Err("has `..` in its path"),
            Component::RootDir | Component::Prefix(_) => return Err("has an absolute path"),
        }
    }
    Ok(plain)
}

fn components(path: &Path) -> impl DoubleEndedIterator<Item = PathBuf> {
    let named = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    named.map(|part| PathBuf::from(part.as_os_str()))
}

fn link_target(
    entry: &tar::Entry<'_, impl Read>,
    refuse: impl Fn(&str) -> ArchiveError,
) -> Result<PathBuf, ArchiveError> {
    let target = entry.link_name().map_err(ArchiveError::Malformed)?;
    match target {
        Some(target) if !target.as_os_str().is_empty() => Ok(target.into_owned()),
        _ => Err(refuse("is a link to nothing")),
    }
}

/// Notices an archive that was cut between two entries: a whole one ends with a block of zeros.
struct Whole<R> {
    inner: R,
    zeros: usize,
    any: bool,
}

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let read = &buffer[..count];
        self.any |= count > 0;
        match read.iter().rev().position(|byte| *byte != 0) {
            Some(zeros) => self.zeros = zeros,
            None => self.zeros += count,
        }
        Ok(count)
    }
}

impl<R> Whole<R> {
    fn finish(&self) -> io::Result<()> {
        const BLOCK: usize = 512;
        match self.any && self.zeros >= BLOCK {
            true => Ok(()),
            false => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends before its end mark: it was cut"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    enum Item<'a> {
        File(&'a str, &'a [u8]),
        Folder(&'a str),
        Link(&'a str, &'a str),
        HardLink(&'a str, &'a str),
        Device(&'a str),
    }
    use Item::{Device, File as F, Folder, HardLink, Link};

    /// Writes names as they are: the builder of `tar` itself refuses bad ones.
    fn archive(items: &[Item<'_>]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for item in items {
            let (kind, path, data, target) = match item {
                F(path, data) => (tar::EntryType::Regular, path, *data, ""),
                Folder(path) => (tar::EntryType::Directory, path, &b""[..], ""),
                Link(path, target) => (tar::EntryType::Symlink, path, &b""[..], *target),
                HardLink(path, target) => (tar::EntryType::Link, path, &b""[..], *target),
                Device(path) => (tar::EntryType::Block, path, &b""[..], ""),
            };
            let mut header = tar::Header::new_gnu();
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            header.as_gnu_mut().unwrap().linkname[..target.len()].copy_from_slice(target.as_bytes());
            header.set_entry_type(kind);
            header.set_mode(0o6755);
            header.set_size(data.len() as u64);
            header.set_cksum();
            builder.append(&header, data).unwrap();
        }
        zstd::encode_all(builder.into_inner().unwrap().as_slice(), 1).unwrap()
    }

    #[track_caller]
    fn refused(items: &[Item<'_>], because: &str) {
        let packed = archive(items);
        let error = check(packed.as_slice(), Caps::default()).unwrap_err().to_string();
        assert!(error.contains(because), "{error}");
        let dir = tempfile::tempdir().unwrap();
        let into = dir.path().join("deep/app");
        fs::create_dir_all(&into).unwrap();
        unpack(packed.as_slice(), &into, Caps::default()).unwrap_err();
        let outside: Vec<_> =
            fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(outside, ["deep"]);
    }

    #[test]
    fn what_leads_out_is_refused() {
        refused(&[F("../x", b"")], "has `..` in its path");
        refused(&[F("a/../../x", b"")], "has `..` in its path");
        refused(&[F("/etc/x", b"")], "has an absolute path");
        refused(&[Link("l", "../x")], "leads out");
        refused(&[Link("l", "/etc/passwd")], "leads out");
        refused(&[Link("a/b/l", "../../../x")], "leads out");
        refused(&[HardLink("l", "../x")], "has `..`");
        refused(&[HardLink("l", "nothing")], "no earlier file");
    }

    #[test]
    fn a_link_that_leads_out_through_another_is_refused() {
        // p/q is the folder itself, so that p/q/.. is outside, though its letters look inside.
        refused(&[Folder("p"), Link("p/q", ".."), Link("out", "p/q/..")], "leads out");
        refused(&[Link("l", "."), F("l/x", b"")], "lies behind the link");
        refused(&[Link("a", "b"), Link("b", "a")], "circle");
    }

    #[test]
    fn what_is_no_file_folder_or_link_is_refused() {
        refused(&[Device("sda")], "neither a file");
        refused(&[F("a", b""), F("a/b", b"")], "below what is a file");
        refused(&[Folder("a"), F("a", b"")], "folder before");
    }

    #[test]
    fn a_cut_archive_is_refused_wherever_it_was_cut() {
        let whole = archive(&[F("a", &[7; 100_000]), F("b", b"b")]);
        for part in [0, 1, whole.len() / 2, whole.len() - 1] {
            assert!(
                matches!(check(&whole[..part], Caps::default()), Err(ArchiveError::Malformed(_))),
                "{part}"
            );
        }
        // Cut before it was compressed, between two entries.
        let plain = zstd::decode_all(whole.as_slice()).unwrap();
        let cut = zstd::encode_all(&plain[..512 + 100_352], 1).unwrap();
        assert!(matches!(check(cut.as_slice(), Caps::default()), Err(ArchiveError::Malformed(_))));
    }

    #[test]
    fn caps_are_kept() {
        let packed = archive(&[F("a", &[0; 4000]), F("b", b"")]);
        let caps = Caps { entries: 1, bytes: u64::MAX };
        assert!(matches!(check(packed.as_slice(), caps), Err(ArchiveError::TooMany(1))));
        let caps = Caps { entries: 9, bytes: 3999 };
        assert!(matches!(check(packed.as_slice(), caps), Err(ArchiveError::TooLarge(3999))));
    }

    #[test]
    fn a_good_archive_is_unpacked_as_it_was() {
        let packed = archive(&[
            Folder("./"),
            F("bin/run", b"#!/bin/sh"),
            HardLink("bin/again", "bin/run"),
            Link("node_modules/.bin/run", "../../bin/run"),
            Link("dangling", "not/here"),
            F("bin/run", b"newer"),
        ]);
        check(packed.as_slice(), Caps::default()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        unpack(packed.as_slice(), dir.path(), Caps::default()).unwrap();
        assert_eq!(fs::read(dir.path().join("node_modules/.bin/run")).unwrap(), b"newer");
        assert_eq!(fs::read(dir.path().join("bin/again")).unwrap(), b"#!/bin/sh");
        let mode = fs::metadata(dir.path().join("bin/run")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);
    }
}
