//! Waking up when a file in a folder changes.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

use crate::readable::readable;

/// Where the kernel gives no more watchers (`fs.inotify.max_user_instances`), one looks so often.
const POLL: Duration = Duration::from_millis(100);
/// With a watcher too one looks again at times, should an event be lost.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// A folder that is looked at.
#[derive(Debug)]
pub struct FolderWatch {
    inotify: Option<AsyncFd<OwnedFd>>,
}

impl FolderWatch {
    /// Sees every change after it was made. Never fails: it looks from time to time instead.
    pub fn new(folder: &Path) -> Self {
        Self { inotify: Self::start(folder).ok() }
    }

    fn start(folder: &Path) -> io::Result<AsyncFd<OwnedFd>> {
        let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        let changes = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::DELETE_SELF;
        inotify::add_watch(&fd, folder, changes)?;
        readable(fd)
    }

    /// Returns after a change, or without one after some seconds: look again.
    pub async fn changed(&mut self) {
        let Some(inotify) = &self.inotify else { return tokio::time::sleep(POLL).await };
        if let Ok(Ok(mut ready)) = tokio::time::timeout(LOOK_AGAIN, inotify.readable()).await {
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut events = inotify::Reader::new(ready.get_inner(), &mut buffer);
            while events.next().is_ok() {}
            ready.clear_ready();
        }
    }
}
