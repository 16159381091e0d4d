//! The application behind every proxy: `bench upstream <port>`.
//!
//! `GET /` is answered with 1 KiB, `GET /10m` with 10 MiB, a body to `/upload` is swallowed, `/ws` is a WebSocket that
//! echoes. Single-threaded over epoll, answers are made beforehand: it should be nobody's bottleneck. It trusts its
//! proxies: no time-outs, no limits; a request that it does not understand ends the program with an error.

use std::borrow::Cow;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use anyhow::{Context, bail, ensure};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::poll::{Poll, Ready, listen, would_block};

/// Bytes of the small answer's body.
pub const SMALL: usize = 1024;
/// Bytes of the large answer's body, and of what is uploaded.
pub const LARGE: usize = 10 * 1024 * 1024;

const LISTENER: usize = usize::MAX;

struct Answers {
    small: &'static [u8],
    large: &'static [u8],
    taken: &'static [u8],
}

impl Answers {
    fn new() -> Self {
        let answer = |length: usize| -> &'static [u8] {
            let mut bytes = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\
                 cache-control: no-store\r\ndate: Sat, 21 Nov 2026 12:00:00 GMT\r\nserver: upstream\r\n\r\n"
            )
            .into_bytes();
            bytes.resize(bytes.len() + length, b'x');
            bytes.leak()
        };
        Self { small: answer(SMALL), large: answer(LARGE), taken: answer(2) }
    }
}

enum State {
    /// Reads a request's head.
    Head,
    /// Swallows so many more bytes, then answers.
    Sink(usize),
    /// A WebSocket.
    Echo,
}

struct Connection {
    stream: TcpStream,
    state: State,
    /// What came of a head or of a frame that is not whole yet.
    input: Vec<u8>,
    output: Cow<'static, [u8]>,
    written: usize,
    waits_to_write: bool,
}

/// Serves until it is killed.
///
/// # Errors
/// Where the port is taken, or a proxy sends what this does not understand.
pub fn run(port: u16) -> anyhow::Result<()> {
    let listener = listen(port).with_context(|| format!("can't listen on port {port}"))?;
    let answers = Answers::new();
    let mut poll = Poll::new()?;
    poll.add(&listener, LISTENER, Ready::IN)?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let (mut free, mut freed) = (Vec::new(), Vec::new());
    let mut scratch = vec![0; 256 * 1024];
    let mut ready = Vec::new();
    loop {
        poll.wait(None, &mut ready)?;
        for &(key, flags) in &ready {
            if key == LISTENER {
                accept(&listener, &poll, &mut connections, &mut free)?;
                continue;
            }
            let Some(connection) = connections.get_mut(key).and_then(Option::as_mut) else { continue };
            let open = connection.serve(&poll, key, flags, &answers, &mut scratch)?;
            if !open {
                connections[key] = None;
                freed.push(key);
            }
        }
        free.append(&mut freed);
    }
}

fn accept(
    listener: &TcpListener,
    poll: &Poll,
    connections: &mut Vec<Option<Connection>>,
    free: &mut Vec<usize>,
) -> anyhow::Result<()> {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if would_block(&error) => return Ok(()),
            Err(error) => return Err(error).context("can't accept"),
        };
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let key = free.pop().unwrap_or_else(|| {
            connections.push(None);
            connections.len() - 1
        });
        poll.add(&stream, key, Ready::IN)?;
        connections[key] = Some(Connection {
            stream,
            state: State::Head,
            input: Vec::new(),
            output: Cow::Borrowed(&[]),
            written: 0,
            waits_to_write: false,
        });
    }
}

impl Connection {
    /// Does what can be done now; says whether the connection is still open.
    fn serve(
        &mut self,
        poll: &Poll,
        key: usize,
        flags: Ready,
        answers: &Answers,
        scratch: &mut [u8],
    ) -> anyhow::Result<bool> {
        if flags.intersects(Ready::ERR) {
            return Ok(false);
        }
        if self.waits_to_write {
            match self.flush() {
                Ok(true) => {
                    self.waits_to_write = false;
                    poll.modify(&self.stream, key, Ready::IN)?;
                }
                Ok(false) => return Ok(true),
                Err(_) => return Ok(false),
            }
        }
        let read = match self.stream.read(scratch) {
            Ok(0) => return Ok(false),
            Ok(read) => read,
            Err(error) => return Ok(would_block(&error)),
        };
        let mut rest = &scratch[..read];
        while !rest.is_empty() {
            rest = self.take(rest, answers)?;
        }
        match self.flush() {
            Ok(true) => {}
            Ok(false) => {
                self.waits_to_write = true;
                poll.modify(&self.stream, key, Ready::OUT)?;
            }
            Err(_) => return Ok(false),
        }
        Ok(true)
    }

    /// Uses some of the bytes; gives back what is left.
    fn take<'b>(&mut self, bytes: &'b [u8], answers: &Answers) -> anyhow::Result<&'b [u8]> {
        match &mut self.state {
            State::Sink(left) => {
                let now = (*left).min(bytes.len());
                *left -= now;
                if *left == 0 {
                    self.state = State::Head;
                    self.answer(Cow::Borrowed(answers.taken));
                }
                Ok(&bytes[now..])
            }
            State::Echo => {
                self.input.extend_from_slice(bytes);
                self.echo()?;
                Ok(&[])
            }
            State::Head => {
                if self.input.is_empty()
                    && let Some(used) = self.head(bytes, answers)?
                {
                    return Ok(&bytes[used..]);
                }
                let before = self.input.len();
                self.input.extend_from_slice(bytes);
                let input = std::mem::take(&mut self.input);
                match self.head(&input, answers)? {
                    Some(used) => Ok(&bytes[used - before..]),
                    None => {
                        self.input = input;
                        Ok(&[])
                    }
                }
            }
        }
    }

    /// Answers the request whose head is at the start of `bytes`: its length, or none while it is not whole.
    fn head(&mut self, bytes: &[u8], answers: &Answers) -> anyhow::Result<Option<usize>> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        let status = request.parse(bytes).context("a proxy sent a head that can't be read")?;
        let httparse::Status::Complete(length) = status else { return Ok(None) };
        let value = |name: &str| {
            let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
            found.and_then(|header| std::str::from_utf8(header.value).ok())
        };
        match request.path.unwrap_or_default() {
            "/" => self.answer(Cow::Borrowed(answers.small)),
            "/10m" => self.answer(Cow::Borrowed(answers.large)),
            "/upload" => {
                let length = value("content-length").context("an upload came without its length")?;
                self.state = State::Sink(length.trim().parse()?);
            }
            "/ws" => {
                let key = value("sec-websocket-key").context("a WebSocket came without a key")?;
                self.state = State::Echo;
                self.answer(Cow::Owned(
                    format!(
                        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
                         sec-websocket-accept: {}\r\n\r\n",
                        derive_accept_key(key.as_bytes())
                    )
                    .into_bytes(),
                ));
            }
            other => bail!("nobody should ask for {other}"),
        }
        Ok(Some(length))
    }

    /// Sends back each whole frame of the input, unmasked (RFC 6455, 5.3). Only short frames are ever sent.
    fn echo(&mut self) -> anyhow::Result<()> {
        let mut at = 0;
        while let Some(&[first, second]) = self.input.get(at..at + 2) {
            ensure!(second & 0x80 != 0 && second & 0x7f < 126, "only short masked frames are expected");
            let length = usize::from(second & 0x7f);
            let Some(frame) = self.input.get(at + 2..at + 6 + length) else { break };
            let (mask, payload) = frame.split_at(4);
            let mut answer = Vec::with_capacity(2 + length);
            answer.extend([first, second & 0x7f]);
            answer.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
            self.answer(Cow::Owned(answer));
            at += 6 + length;
        }
        self.input.drain(..at);
        Ok(())
    }

    fn answer(&mut self, bytes: Cow<'static, [u8]>) {
        if self.written == self.output.len() {
            (self.output, self.written) = (bytes, 0);
        } else {
            self.output.to_mut().extend_from_slice(&bytes);
        }
    }

    /// Whether all is written.
    fn flush(&mut self) -> io::Result<bool> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if would_block(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}
