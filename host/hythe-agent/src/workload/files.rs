//! A workload's own files: made ready before a run, removed in the end.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use crate::context::Context;
use crate::data::{WorkloadFolder, make};
use crate::durable;
use crate::source::SourceError;
use crate::users::UserId;

use super::record::Record;

/// The workload's own folders are closed to other users.
const OWN: u32 = 0o750;

/// Digest that stands for "no source".
const NO_SOURCE: &str = "";

/// Makes the folders and unpacks the source, where that was not done before. Says what lies there now.
///
/// What a crash left half-done is done anew: the source goes to a folder beside, which then takes the
/// place of the old one.
pub fn make_ready(
    context: &Context,
    folder: &WorkloadFolder,
    record: &Record,
) -> Result<String, SourceError> {
    folder.make()?;
    if !folder.home().is_dir() {
        make(&folder.home(), OWN)?;
        give(&folder.home(), record.user)?;
    }
    let wanted = record.spec.source.as_deref().unwrap_or(NO_SOURCE);
    if record.unpacked.as_deref() == Some(wanted) && folder.app().is_dir() {
        return Ok(wanted.to_owned());
    }
    let unpacking = folder.unpacking();
    durable::remove_folder(&unpacking)?;
    make(&unpacking, 0o700)?;
    let unpacked = match wanted {
        NO_SOURCE => Ok(()),
        digest => context.sources.unpack(digest, &unpacking),
    };
    let given = unpacked.and_then(|()| {
        fs::set_permissions(&unpacking, fs::Permissions::from_mode(OWN))?;
        Ok(give(&unpacking, record.user)?)
    });
    if let Err(error) = given {
        durable::remove_folder(&unpacking)?;
        return Err(error);
    }
    // The set-up was done in the old one.
    durable::remove(&folder.setup_done())?;
    durable::remove_folder(&folder.app())?;
    fs::rename(&unpacking, folder.app())?;
    durable::sync_folder_of(&folder.app())?;
    Ok(wanted.to_owned())
}

/// Whether a start will need the source's archive.
pub fn needs_archive(folder: &WorkloadFolder, record: &Record, source: &str) -> bool {
    record.unpacked.as_deref() != Some(source) || !folder.app().is_dir()
}

/// Hands over the folder and all in it; nothing outside, whatever links there are.
fn give(path: &Path, user: Option<UserId>) -> io::Result<()> {
    let Some(user) = user else { return Ok(()) };
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                lchown(entry.path(), Some(user.uid), Some(user.gid))?;
            }
        }
        lchown(&folder, Some(user.uid), Some(user.gid))?;
    }
    Ok(())
}

/// Removes everything. The folder is moved away first, so that a crash half-way leaves nothing that looks
/// like a workload's.
pub fn remove(folder: &WorkloadFolder) -> io::Result<()> {
    let mut doomed = OsString::from(folder.path());
    doomed.push(".gone");
    let doomed = Path::new(&doomed);
    durable::remove_folder(doomed)?;
    match fs::rename(folder.path(), doomed) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        renamed => renamed?,
    }
    // A workload may have made its own folders unreadable, which stops all but root.
    if fs::remove_dir_all(doomed).is_err() {
        open_up(doomed)?;
        durable::remove_folder(doomed)?;
    }
    Ok(())
}

fn open_up(folder: &Path) -> io::Result<()> {
    let mode = folder.symlink_metadata()?.mode();
    fs::set_permissions(folder, fs::Permissions::from_mode(mode | 0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}
