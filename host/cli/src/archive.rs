//! A project's folder as one archive: tar, compressed by zstd, named by its SHA-256.
//!
//! Always holds: the same files give the same bytes, whoever packs them, when and where: entries are
//! sorted, times and owners are zero, of the mode only "may be executed" is kept. No entry leads out
//! of the folder. `.git` is never in it.
//!
//! Left out: what `.gitignore` and `.hytheignore` say, version control's own folders, `node_modules`
//! (unless asked for) and Python's virtual environments, which hold absolute paths.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Component, Path, PathBuf};

use ignore::WalkBuilder;
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

use crate::failure::Failure;

/// Says what not to upload, beside `.gitignore`, and counts more: `!dist/` brings back what git leaves.
pub const IGNORE_FILE: &str = ".hytheignore";
/// zstd's: about as fast as a disk.
const LEVEL: i32 = 3;

/// A packed folder, in a file that goes when this does.
#[derive(Debug)]
pub struct Archive {
    file: tempfile::NamedTempFile,
    /// Lower-case hex, of the compressed bytes.
    pub sha256: String,
    /// Of the compressed bytes.
    pub bytes: u64,
    pub files: u64,
    /// Of the files' contents.
    pub unpacked_bytes: u64,
    /// Sockets, pipes and devices: they have no content to upload.
    pub skipped: Vec<PathBuf>,
}

impl Archive {
    /// The archive's bytes, from the beginning.
    ///
    /// # Errors
    /// Where the temporary file is gone.
    pub fn open(&self) -> io::Result<File> {
        self.file.reopen()
    }
}

/// What else to take.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    pub with_node_modules: bool,
}

/// Why a folder can't be packed.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("{path} is not a folder")]
    NotAFolder { path: PathBuf },
    #[error("{path} is a whole home or system, not a project")]
    TooWide { path: PathBuf },
    #[error("{path} has no files to upload")]
    Empty { path: PathBuf },
    #[error("the link {link} leads out of the project: it points to {target}")]
    LeadsOut { link: PathBuf, target: PathBuf },
    #[error("can't read {path}: {source}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{path} changed while it was read")]
    Changed { path: PathBuf },
    #[error("can't read the folder: {source}")]
    Walk { source: ignore::Error },
    #[error("can't write the archive to the temporary folder: {source}")]
    Spool { source: io::Error },
}

impl From<ArchiveError> for Failure {
    fn from(error: ArchiveError) -> Self {
        let failure = match &error {
            ArchiveError::NotAFolder { .. } | ArchiveError::TooWide { .. } | ArchiveError::Empty { .. } => {
                Self::usage(error.to_string())
            }
            _ => Self::other(error.to_string()),
        };
        match &error {
            ArchiveError::NotAFolder { .. } | ArchiveError::TooWide { .. } => {
                failure.hint("name the project's folder: hythe deploy DIR")
            }
            ArchiveError::Empty { .. } => {
                failure.hint(format!("what .gitignore and {IGNORE_FILE} name is left out; `!name` in {IGNORE_FILE} brings it back"))
            }
            ArchiveError::LeadsOut { .. } => failure.hint(format!(
                "put a copy in its place, make it a relative link inside the project, or name it in {IGNORE_FILE}"
            )),
            ArchiveError::Unreadable { path, .. } => {
                failure.hint(format!("make it readable, or name it in {IGNORE_FILE}")).at(path.display().to_string())
            }
            ArchiveError::Changed { .. } => failure.hint("wait until nothing writes there, and try again"),
            ArchiveError::Walk { .. } => failure,
            ArchiveError::Spool { .. } => failure.hint("free some space, or set TMPDIR to a folder with more"),
        }
    }
}

/// Packs a folder. `progress` hears of each file: its size in bytes.
///
/// # Errors
/// Where the folder has nothing to upload, leads out of itself, or can't be read.
pub fn pack(folder: &Path, options: Options, progress: &dyn Fn(u64)) -> Result<Archive, ArchiveError> {
    let root = folder
        .canonicalize()
        .ok()
        .filter(|root| root.is_dir())
        .ok_or_else(|| ArchiveError::NotAFolder { path: folder.to_owned() })?;
    let home = std::env::var_os("HOME").and_then(|home| Path::new(&home).canonicalize().ok());
    if root.parent().is_none() || home.is_some_and(|home| home == root) {
        return Err(ArchiveError::TooWide { path: root });
    }
    let entries = walk(&root, options)?;
    let file = tempfile::NamedTempFile::new().map_err(|source| ArchiveError::Spool { source })?;
    let packed = write(&root, &entries, file.as_file(), progress)?;
    file.as_file().rewind().map_err(|source| ArchiveError::Spool { source })?;
    let Packed { sha256, bytes, files, unpacked_bytes, skipped } = packed;
    Ok(Archive { file, sha256, bytes, files, unpacked_bytes, skipped })
}

/// An [`Archive`] without its file.
struct Packed {
    sha256: String,
    bytes: u64,
    files: u64,
    unpacked_bytes: u64,
    skipped: Vec<PathBuf>,
}

fn write(
    root: &Path,
    entries: &[PathBuf],
    file: &File,
    progress: &dyn Fn(u64),
) -> Result<Packed, ArchiveError> {
    let spool = |source| ArchiveError::Spool { source };
    let hashing = Hashing { file, hash: Sha256::new(), bytes: 0 };
    let zstd = zstd::Encoder::new(hashing, LEVEL).map_err(spool)?;
    let mut writer =
        Writer { tar: tar::Builder::new(zstd), root, files: 0, unpacked: 0, skipped: Vec::new() };
    for entry in entries {
        writer.append(entry, progress)?;
    }
    if writer.files == 0 {
        return Err(ArchiveError::Empty { path: root.to_owned() });
    }
    let Writer { tar, files, unpacked, skipped, .. } = writer;
    let Hashing { hash, bytes, .. } = tar.into_inner().and_then(zstd::Encoder::finish).map_err(spool)?;
    Ok(Packed { sha256: hex::encode(hash.finalize()), bytes, files, unpacked_bytes: unpacked, skipped })
}

/// What is to be packed, relative to the root, in the one order.
fn walk(root: &Path, options: Options) -> Result<Vec<PathBuf>, ArchiveError> {
    // Rules of folders above count where git would count them: inside one repository.
    let in_repository = root.ancestors().any(|folder| folder.join(".git").exists());
    let mut walk = WalkBuilder::new(root);
    walk.standard_filters(false)
        .git_ignore(true)
        .git_exclude(true)
        .require_git(false)
        .parents(in_repository)
        .add_custom_ignore_filename(IGNORE_FILE)
        .filter_entry(move |entry| {
            let is_folder = entry.file_type().is_some_and(|kind| kind.is_dir());
            entry.depth() == 0 || !is_left_out(entry.path(), entry.file_name(), is_folder, options)
        });
    let mut entries = Vec::new();
    for entry in walk.build() {
        let entry = entry.map_err(|source| ArchiveError::Walk { source })?;
        if let Ok(relative) = entry.path().strip_prefix(root)
            && entry.depth() > 0
        {
            entries.push(relative.to_owned());
        }
    }
    // By bytes, not by the file system's order or the user's language.
    entries.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    Ok(entries)
}

fn is_left_out(path: &Path, name: &OsStr, is_folder: bool, options: Options) -> bool {
    // `.git` is a file in submodules and work trees.
    if name == ".git" || name == ".DS_Store" {
        return true;
    }
    is_folder
        && (name == ".hg"
            || name == ".svn"
            || name == "__pycache__"
            || (name == "node_modules" && !options.with_node_modules)
            || path.join("pyvenv.cfg").is_file())
}

struct Writer<'a, W: Write> {
    tar: tar::Builder<W>,
    root: &'a Path,
    files: u64,
    unpacked: u64,
    skipped: Vec<PathBuf>,
}

impl<W: Write> Writer<'_, W> {
    fn append(&mut self, relative: &Path, progress: &dyn Fn(u64)) -> Result<(), ArchiveError> {
        let path = self.root.join(relative);
        let unreadable = |source| ArchiveError::Unreadable { path: path.clone(), source };
        let kind = fs::symlink_metadata(&path).map_err(unreadable)?.file_type();
        if kind.is_dir() {
            let mut header = header(EntryType::Directory, 0o755, 0);
            let spool = |source| ArchiveError::Spool { source };
            return self.tar.append_data(&mut header, relative, io::empty()).map_err(spool);
        }
        if kind.is_symlink() {
            self.append_link(relative, &path)
        } else if kind.is_file() {
            self.append_file(relative, &path, progress)
        } else {
            self.skipped.push(relative.to_owned());
            Ok(())
        }
    }

    fn append_link(&mut self, relative: &Path, path: &Path) -> Result<(), ArchiveError> {
        let target = fs::read_link(path)
            .map_err(|source| ArchiveError::Unreadable { path: path.to_owned(), source })?;
        if leads_out(self.root, relative, &target) {
            return Err(ArchiveError::LeadsOut { link: relative.to_owned(), target });
        }
        let mut header = header(EntryType::Symlink, 0o777, 0);
        self.tar
            .append_link(&mut header, relative, &target)
            .map_err(|source| ArchiveError::Spool { source })?;
        self.files += 1;
        Ok(())
    }

    fn append_file(
        &mut self,
        relative: &Path,
        path: &Path,
        progress: &dyn Fn(u64),
    ) -> Result<(), ArchiveError> {
        let unreadable = |source| ArchiveError::Unreadable { path: path.to_owned(), source };
        let file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        let mode = if is_executable(&metadata) { 0o755 } else { 0o644 };
        let mut header = header(EntryType::Regular, mode, metadata.len());
        // The header has said how long it is: not a byte more or less may follow.
        let mut content = Counted { inner: file.take(metadata.len()), read: 0, fault: None };
        let written = self.tar.append_data(&mut header, relative, &mut content);
        let Counted { read, fault, .. } = content;
        if let Some(source) = fault {
            return Err(unreadable(source));
        }
        written.map_err(|source| ArchiveError::Spool { source })?;
        if read != metadata.len() {
            return Err(ArchiveError::Changed { path: relative.to_owned() });
        }
        self.files += 1;
        self.unpacked += read;
        progress(read);
        Ok(())
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

#[cfg(unix)]
fn is_executable(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o111 != 0
}

#[cfg(not(unix))]
fn is_executable(_: &fs::Metadata) -> bool {
    false
}

/// Whether a link points outside of the tree: as it is written, or by way of other links.
fn leads_out(root: &Path, link: &Path, target: &Path) -> bool {
    let mut depth = link.components().count().saturating_sub(1);
    for component in target.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(_) => depth += 1,
            Component::ParentDir => match depth.checked_sub(1) {
                Some(up) => depth = up,
                None => return true,
            },
            Component::RootDir | Component::Prefix(_) => return true,
        }
    }
    let folder = root.join(link.parent().unwrap_or(Path::new("")));
    // A target that does not exist (yet: a build may make it) has been judged by its text.
    folder.join(target).canonicalize().is_ok_and(|resolved| !resolved.starts_with(root))
}

/// Tells the source's faults from those of what it is written to.
struct Counted<R> {
    inner: R,
    read: u64,
    fault: Option<io::Error>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(count) => {
                self.read += count as u64;
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                self.fault = Some(error);
                Err(kind.into())
            }
        }
    }
}

struct Hashing<'a> {
    file: &'a File,
    hash: Sha256,
    bytes: u64,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests;
