//! The floor of floors: `bench l4 <port> <port of the upstream>` copies bytes between pairs of sockets and knows
//! nothing of HTTP.
//!
//! Single-threaded over epoll, one buffer for all. Each client has an upstream connection of its own.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use anyhow::Context;

use super::poll::{Poll, Ready, listen, would_block};

const LISTENER: usize = usize::MAX;

/// One direction's end: read from here, write to the other one of the pair.
struct End {
    stream: TcpStream,
    /// Read from here, not yet taken by the other.
    kept: Vec<u8>,
    ended: bool,
}

struct Pair {
    ends: [End; 2],
    wanted: [Ready; 2],
}

/// Copies until it is killed.
///
/// # Errors
/// Where the port is taken.
pub fn run(port: u16, upstream: u16) -> anyhow::Result<()> {
    let listener = listen(port).with_context(|| format!("can't listen on port {port}"))?;
    let upstream = SocketAddr::from(([127, 0, 0, 1], upstream));
    let mut poll = Poll::new()?;
    poll.add(&listener, LISTENER, Ready::IN)?;
    let mut pairs: Vec<Option<Pair>> = Vec::new();
    let (mut free, mut freed) = (Vec::new(), Vec::new());
    let mut scratch = vec![0; 64 * 1024];
    let mut ready = Vec::new();
    loop {
        poll.wait(None, &mut ready)?;
        for &(key, flags) in &ready {
            if key == LISTENER {
                accept(&listener, upstream, &poll, &mut pairs, &mut free)?;
                continue;
            }
            let Some(pair) = pairs.get_mut(key / 2).and_then(Option::as_mut) else { continue };
            if !pair.serve(&poll, key, flags, &mut scratch).unwrap_or(false) {
                pairs[key / 2] = None;
                freed.push(key / 2);
            }
        }
        free.append(&mut freed);
    }
}

fn accept(
    listener: &TcpListener,
    upstream: SocketAddr,
    poll: &Poll,
    pairs: &mut Vec<Option<Pair>>,
    free: &mut Vec<usize>,
) -> anyhow::Result<()> {
    loop {
        let client = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if would_block(&error) => return Ok(()),
            Err(error) => return Err(error).context("can't accept"),
        };
        let Ok(server) = TcpStream::connect(upstream) else { continue };
        let number = free.pop().unwrap_or_else(|| {
            pairs.push(None);
            pairs.len() - 1
        });
        for (side, stream) in [&client, &server].into_iter().enumerate() {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            poll.add(stream, 2 * number + side, Ready::IN)?;
        }
        let end = |stream| End { stream, kept: Vec::new(), ended: false };
        pairs[number] = Some(Pair { ends: [end(client), end(server)], wanted: [Ready::IN; 2] });
    }
}

impl Pair {
    /// Copies what can be copied now; says whether either direction still lives.
    fn serve(&mut self, poll: &Poll, key: usize, flags: Ready, scratch: &mut [u8]) -> io::Result<bool> {
        let side = key % 2;
        if flags.intersects(Ready::ERR) || flags.intersects(Ready::HUP) && self.ends[side].ended {
            return Ok(false);
        }
        if flags.intersects(Ready::OUT) {
            let [a, b] = &mut self.ends;
            let (from, to) = if side == 0 { (b, a) } else { (a, b) };
            let kept = std::mem::take(&mut from.kept);
            write(from, to, &kept)?;
        }
        if flags.intersects(Ready::IN | Ready::HUP) {
            let [a, b] = &mut self.ends;
            let (from, to) = if side == 0 { (a, b) } else { (b, a) };
            if from.kept.is_empty() && !from.ended {
                match from.stream.read(scratch) {
                    Ok(0) => {
                        from.ended = true;
                        to.stream.shutdown(Shutdown::Write)?;
                    }
                    Ok(read) => write(from, to, &scratch[..read])?,
                    Err(error) if would_block(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        for side in [0, 1] {
            let (own, other) = (&self.ends[side], &self.ends[1 - side]);
            let mut wanted = Ready::empty();
            wanted.set(Ready::IN, own.kept.is_empty() && !own.ended);
            wanted.set(Ready::OUT, !other.kept.is_empty());
            if wanted != self.wanted[side] {
                poll.modify(&own.stream, key - key % 2 + side, wanted)?;
                self.wanted[side] = wanted;
            }
        }
        Ok(!self.ends.iter().all(|end| end.ended))
    }
}

/// Writes what `to` takes; the rest is kept.
fn write(from: &mut End, to: &mut End, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.stream.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if would_block(&error) => {
                from.kept.extend_from_slice(bytes);
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
