//! Waiting until a file descriptor can be read. The only unsafe code of this crate.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor that no one else has, for reading.
pub fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(
        unsafe_code,
        reason = "tokio has no safe way for descriptors that the standard library knows not by type"
    )]
    // SAFETY: an `OwnedFd` is open until it is dropped, is always the same descriptor, and is owned by the
    // `AsyncFd` from here on.
    let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    Ok(registered?)
}
