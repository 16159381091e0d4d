//! Bytes both ways, until both sides have ended. What is idle holds no buffer: bytes go through one that
//! the worker's tunnels share, and only what a slow side does not take at once is kept.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Enough that a busy tunnel needs few system calls.
pub(crate) const SCRATCH: usize = 64 * 1024;

/// One direction.
#[derive(Default)]
struct Way {
    /// What was read and not yet written, from `at` on.
    kept: Vec<u8>,
    at: usize,
    state: WayState,
    moved: u64,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum WayState {
    #[default]
    Open,
    /// The reader has ended; the writer is being told.
    Closing,
    Closed,
}

/// Copies until both directions have ended, each by itself: a side that has said all may still listen.
/// `early` was read from `b` before; it goes to `a` first. Gives the bytes moved to `a` and to `b`.
///
/// # Errors
/// Of whichever stream fails first; the other is not told but by being dropped.
pub(crate) async fn relay<A, B>(
    a: &mut A,
    b: &mut B,
    early: &[u8],
    scratch: &RefCell<Vec<u8>>,
) -> io::Result<(u64, u64)>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let mut to_a = Way { kept: early.to_vec(), ..Way::default() };
    let mut to_b = Way::default();
    std::future::poll_fn(|cx| {
        let one = to_a.poll(cx, b, a, scratch)?;
        let other = to_b.poll(cx, a, b, scratch)?;
        if one.is_ready() && other.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
    .map(|()| (to_a.moved, to_b.moved))
}

impl Way {
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        scratch: &RefCell<Vec<u8>>,
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        // A direction that never pauses would starve the other and the worker.
        for _ in 0..16 {
            ready!(self.poll_kept(cx, to))?;
            match self.state {
                WayState::Open => {}
                WayState::Closing => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.state = WayState::Closed;
                    return Poll::Ready(Ok(()));
                }
                WayState::Closed => return Poll::Ready(Ok(())),
            }
            let mut scratch = scratch.borrow_mut();
            let mut buffer = ReadBuf::new(&mut scratch);
            let Poll::Ready(read) = Pin::new(&mut *from).poll_read(cx, &mut buffer) else {
                // What a TLS stream, say, has not yet sent.
                ready!(Pin::new(&mut *to).poll_flush(cx))?;
                return Poll::Pending;
            };
            read?;
            let bytes = buffer.filled();
            if bytes.is_empty() {
                self.state = WayState::Closing;
                continue;
            }
            self.moved += bytes.len() as u64;
            match Pin::new(&mut *to).poll_write(cx, bytes) {
                Poll::Ready(written) => {
                    let written = written?;
                    if written == 0 {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    self.kept.extend_from_slice(&bytes[written..]);
                }
                Poll::Pending => self.kept.extend_from_slice(bytes),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_kept<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, to: &mut W) -> Poll<io::Result<()>> {
        while self.at < self.kept.len() {
            let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.kept[self.at..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.at += written;
        }
        if !self.kept.is_empty() {
            self.kept = Vec::new();
            self.at = 0;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn each_side_ends_by_itself_and_nothing_is_lost_on_slow_ones() {
        let (mut client, mut a) = duplex(7);
        let (mut server, mut b) = duplex(5);
        let scratch = RefCell::new(vec![0; 64]);
        let relayed = relay(&mut a, &mut b, b"early ", &scratch);
        let client = async {
            client.write_all(b"question, longer than all buffers").await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let server = async {
            let mut question = String::new();
            server.read_to_string(&mut question).await.unwrap();
            // The client has said all, and still listens.
            server.write_all(b"answer to ").await.unwrap();
            server.write_all(question.as_bytes()).await.unwrap();
            server.shutdown().await.unwrap();
        };
        let (relayed, answer, ()) = tokio::join!(relayed, client, server);
        assert_eq!(answer, "early answer to question, longer than all buffers");
        assert_eq!(relayed.unwrap(), (43, 33));
    }
}
