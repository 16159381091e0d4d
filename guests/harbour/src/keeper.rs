//! Keeps the harbour in one JSON file: written whole to a file aside and renamed, so that a crash
//! leaves the last whole one.
//!
//! Writing happens beside the requests. Changes that come while a write is under way are kept by the
//! next one, in one go; the last is always written, at the latest when the program ends. A crash loses
//! what was not written yet.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use chrono::Utc;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::board::State;

/// Takes what is to be kept.
#[derive(Debug, Clone)]
pub struct Handle(watch::Sender<Option<State>>);

impl Handle {
    /// Has it kept soon. Never waits.
    pub fn keep(&self, state: &State) {
        self.0.send_replace(Some(state.clone()));
    }
}

/// The task that writes.
pub struct Keeper {
    path: PathBuf,
    handle: Handle,
    writer: JoinHandle<()>,
}

impl Keeper {
    /// Reads what was kept, or the harbour as it is at first. A file that can't be understood is set
    /// aside under another name, never overwritten.
    ///
    /// # Errors
    /// Where the file is there and can't be read, or its folder can't be written.
    pub fn open(path: PathBuf) -> Result<(Self, State)> {
        let state = read(&path)?;
        write(&path, &state)?;
        let (sender, receiver) = watch::channel(None);
        let writer = tokio::spawn(write_changes(path.clone(), receiver));
        Ok((Self { path, handle: Handle(sender), writer }, state))
    }

    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Writes the last state.
    ///
    /// # Errors
    /// Where it can't be written.
    pub async fn close(self, last: State) -> Result<()> {
        self.writer.abort();
        // Whether it ended by itself or was ended: no write is under way afterwards.
        let _ = self.writer.await;
        write(&self.path, &last)
    }
}

async fn write_changes(path: PathBuf, mut changes: watch::Receiver<Option<State>>) {
    while changes.changed().await.is_ok() {
        let Some(state) = changes.borrow_and_update().clone() else { continue };
        // Small and local: not worth a thread of its own, and never half done when we are ended.
        if let Err(error) = write(&path, &state) {
            eprintln!("harbour: {error:#}; trying again at the next change");
        }
    }
}

fn read(path: &Path) -> Result<State> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(State::at_first(Utc::now())),
        Err(error) => {
            return Err(error).with_context(|| format!("can't read {}: check who owns it", path.display()));
        }
    };
    match serde_json::from_slice(&bytes) {
        Ok(state) => Ok(state),
        Err(error) => {
            let aside = path.with_extension(format!("unreadable-{}.json", Utc::now().timestamp()));
            std::fs::rename(path, &aside).with_context(|| format!("can't set {} aside", path.display()))?;
            eprintln!(
                "harbour: {} can't be understood ({error}): set aside as {}, beginning anew",
                path.display(),
                aside.display()
            );
            Ok(State::at_first(Utc::now()))
        }
    }
}

fn write(path: &Path, state: &State) -> Result<()> {
    let failed = || format!("can't write {}: check its folder's owner and the free space", path.display());
    let part = path.with_extension("json.part");
    std::fs::write(&part, serde_json::to_vec_pretty(state)?).with_context(failed)?;
    std::fs::rename(&part, path).with_context(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_change_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("harbour.json");
        let (keeper, mut state) = Keeper::open(path.clone()).unwrap();
        state.say("me", "first", Utc::now()).unwrap();
        keeper.handle().keep(&state);
        state.say("me", "second", Utc::now()).unwrap();
        keeper.close(state.clone()).await.unwrap();
        let (_, kept) = Keeper::open(path).unwrap();
        assert_eq!(kept, state);
    }

    #[tokio::test]
    async fn an_unreadable_file_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("harbour.json");
        std::fs::write(&path, "{\"boats\": 7}").unwrap();
        let (_, state) = Keeper::open(path.clone()).unwrap();
        assert_eq!(state.boats.len(), 5);
        let aside = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let aside: Vec<_> = aside.filter(|path| path.to_string_lossy().contains("unreadable")).collect();
        assert_eq!(std::fs::read_to_string(&aside[0]).unwrap(), "{\"boats\": 7}");
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_is_named() {
        let error = Keeper::open("/no/such/folder/harbour.json".into()).err().unwrap();
        assert!(format!("{error:#}").starts_with("can't write /no/such/folder/harbour.json"), "{error:#}");
    }
}
