//! The load generator: many connections from one thread over epoll, cheap enough not to be what is measured.
//!
//! A closed loop has one request after the other on each connection; an open loop sends at fixed times whether or not
//! answers came, and counts an answer's time from when its request was *due*, so that a proxy that stalls can't hide
//! it. What is measured happens within a window: the meter is read at both of its ends. Any answer but a 200 is an
//! error: a figure of something else would be worse than none.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::OTHER;
use super::poll::{Poll, Ready, Timer, connect, would_block};
use super::upstream::LARGE;

const PATIENCE: Duration = Duration::from_secs(20);
const TIMER: usize = usize::MAX;

/// What each connection asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Small,
    Download,
    Upload,
    /// Messages of a WebSocket.
    Message,
}

/// When the next request is sent.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// At once.
    Closed,
    /// So many a second, over all connections.
    Open(f64),
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub address: SocketAddr,
    pub what: What,
    pub connections: usize,
    /// Routes of the table, and how many of them are asked, each as likely: evenly spread from the first one.
    pub routes: usize,
    pub asked: usize,
    pub pace: Pace,
    /// Before the window.
    pub warm: Duration,
    /// The window.
    pub length: Duration,
}

/// What came of it, within the window.
#[derive(Debug)]
pub struct Outcome<R> {
    pub completed: u64,
    /// Bytes of bodies, in the direction that was asked for.
    pub bytes: u64,
    /// Of each completed request, in microseconds.
    pub latencies_us: Vec<f64>,
    pub took: Duration,
    /// What the meter said at the window's ends.
    pub before: R,
    pub after: R,
}

enum Answer {
    /// Of the head, what came so far.
    Head(Vec<u8>),
    /// So many bytes of the body are to come.
    Body(usize),
    /// Of a message, so many bytes are to come.
    Message(usize),
    /// Nothing is asked.
    Idle,
}

struct Client {
    stream: TcpStream,
    answer: Answer,
    request: Vec<u8>,
    /// Of the request's head and body.
    written: usize,
    /// Whether anything was answered on this connection: what was may close it between two requests.
    used: bool,
    due: Instant,
    waits_to_write: bool,
}

/// Asks, and reads `meter` at the window's ends.
///
/// # Errors
/// Where an answer is no 200, a connection breaks, or nothing comes.
pub fn run<R>(load: &Load, mut meter: impl FnMut() -> anyhow::Result<R>) -> anyhow::Result<Outcome<R>> {
    let mut generator = Generator::new(load)?;
    let begun = Instant::now();
    generator.begin(begun)?;
    generator.until(begun + load.warm)?;
    generator.counted = Counted::default();
    let before = meter()?;
    let start = Instant::now();
    generator.until(start + load.length)?;
    let took = start.elapsed();
    let after = meter()?;
    let counted = generator.counted;
    ensure!(
        counted.completed > 0 || counted.bytes > 0,
        "no request was answered within {:.1} s",
        (load.warm + load.length).as_secs_f64()
    );
    Ok(Outcome {
        completed: counted.completed,
        bytes: counted.bytes,
        latencies_us: counted.latencies_us,
        took,
        before,
        after,
    })
}

#[derive(Default)]
struct Counted {
    completed: u64,
    bytes: u64,
    latencies_us: Vec<f64>,
}

struct Generator<'l> {
    load: &'l Load,
    poll: Poll,
    timer: Timer,
    clients: Vec<Client>,
    idle: Vec<usize>,
    /// When what could not be sent yet was due.
    late: VecDeque<Instant>,
    begun: Instant,
    sent: u64,
    random: u64,
    body: &'static [u8],
    scratch: Vec<u8>,
    ready: Vec<(usize, Ready)>,
    counted: Counted,
    last_answer: Instant,
}

impl<'l> Generator<'l> {
    fn new(load: &'l Load) -> anyhow::Result<Self> {
        static BODY: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let poll = Poll::new()?;
        let timer = Timer::new()?;
        poll.add(&timer, TIMER, Ready::IN)?;
        let mut clients = Vec::with_capacity(load.connections);
        for number in 0..load.connections {
            let client = Client::new(load, number)?;
            poll.add(&client.stream, number, Ready::IN)?;
            clients.push(client);
        }
        let now = Instant::now();
        Ok(Self {
            load,
            poll,
            timer,
            idle: (0..clients.len()).rev().collect(),
            clients,
            late: VecDeque::new(),
            begun: now,
            sent: 0,
            random: 0x9e37_79b9_7f4a_7c15,
            body: if load.what == What::Upload { BODY.get_or_init(|| vec![b'x'; LARGE]) } else { &[] },
            scratch: vec![0; 256 * 1024],
            ready: Vec::new(),
            counted: Counted::default(),
            last_answer: now,
        })
    }

    fn begin(&mut self, now: Instant) -> anyhow::Result<()> {
        (self.begun, self.last_answer) = (now, now);
        match self.load.pace {
            Pace::Closed => {
                while let Some(number) = self.idle.pop() {
                    self.ask(number, now)?;
                }
            }
            Pace::Open(_) => self.timer.set(Duration::ZERO)?,
        }
        Ok(())
    }

    fn until(&mut self, end: Instant) -> anyhow::Result<()> {
        loop {
            let now = Instant::now();
            let Some(left) = end.checked_duration_since(now).filter(|left| !left.is_zero()) else {
                return Ok(());
            };
            if now.duration_since(self.last_answer) > PATIENCE {
                bail!("nothing was answered for {} s", PATIENCE.as_secs());
            }
            let mut ready = std::mem::take(&mut self.ready);
            // To the next millisecond, so as not to spin through the last one.
            self.poll.wait(Some(left + Duration::from_millis(1)), &mut ready)?;
            for &(key, _) in &ready {
                if key == TIMER {
                    self.send_what_is_due()?;
                } else {
                    self.go_on(key)?;
                }
            }
            self.ready = ready;
        }
    }

    /// In the open loop: sends, and sets the timer to the next time.
    fn send_what_is_due(&mut self) -> anyhow::Result<()> {
        let Pace::Open(rate) = self.load.pace else { return Ok(()) };
        let now = Instant::now();
        let begun = self.begun;
        let at = |number: u64| begun + Duration::from_secs_f64(number as f64 / rate);
        while at(self.sent) <= now {
            self.late.push_back(at(self.sent));
            self.sent += 1;
        }
        self.timer.set(at(self.sent).duration_since(now))?;
        while !self.late.is_empty() {
            let Some(number) = self.idle.pop() else { break };
            if let Some(due) = self.late.pop_front() {
                self.ask(number, due)?;
            }
        }
        Ok(())
    }

    fn ask(&mut self, number: usize, due: Instant) -> anyhow::Result<()> {
        let route = self.route();
        let client = &mut self.clients[number];
        client.due = due;
        client.written = 0;
        if self.load.what == What::Message {
            client.answer = Answer::Message(MESSAGE_ANSWER);
        } else {
            client.answer = Answer::Head(Vec::new());
            write_request(&mut client.request, self.load.what, route);
        }
        self.write(number)
    }

    /// One of the hosts: 0 is the first one's.
    fn route(&mut self) -> usize {
        if self.load.asked <= 1 {
            return 0;
        }
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % self.load.asked as u64) as usize * (self.load.routes / self.load.asked)
    }

    fn write(&mut self, number: usize) -> anyhow::Result<()> {
        let client = &mut self.clients[number];
        let head = client.request.len();
        while client.written < head + self.body.len() {
            let rest = if client.written < head {
                &client.request[client.written..]
            } else {
                &self.body[client.written - head..]
            };
            match client.stream.write(rest) {
                Ok(written) => {
                    if client.written >= head {
                        self.counted.bytes += written as u64;
                    }
                    client.written += written;
                }
                Err(error) if would_block(&error) => {
                    if !client.waits_to_write {
                        client.waits_to_write = true;
                        self.poll.modify(&client.stream, number, Ready::IN | Ready::OUT)?;
                    }
                    return Ok(());
                }
                // It was closed while it was idle.
                Err(_) if client.used => return self.again(number),
                Err(error) => return Err(error).context("the proxy closed a new connection"),
            }
        }
        if client.waits_to_write {
            client.waits_to_write = false;
            self.poll.modify(&client.stream, number, Ready::IN)?;
        }
        Ok(())
    }

    /// Connects anew, and asks the same.
    fn again(&mut self, number: usize) -> anyhow::Result<()> {
        ensure!(self.load.what != What::Message, "the proxy closed a WebSocket");
        let old = &mut self.clients[number];
        let mut client = Client::new(self.load, number)?;
        client.request = std::mem::take(&mut old.request);
        client.due = old.due;
        client.answer = Answer::Head(Vec::new());
        self.poll.add(&client.stream, number, Ready::IN)?;
        self.clients[number] = client;
        self.write(number)
    }

    fn go_on(&mut self, number: usize) -> anyhow::Result<()> {
        if self.clients[number].waits_to_write {
            self.write(number)?;
        }
        let client = &mut self.clients[number];
        let read = match client.stream.read(&mut self.scratch) {
            Ok(read) => read,
            Err(error) if would_block(&error) => return Ok(()),
            Err(_) if client.used => 0,
            Err(error) => return Err(error).context("the connection broke before an answer"),
        };
        if read == 0 {
            return match &client.answer {
                Answer::Head(head) if head.is_empty() && client.used => self.again(number),
                Answer::Idle => {
                    let mut fresh = Client::new(self.load, number)?;
                    std::mem::swap(&mut fresh.request, &mut client.request);
                    self.poll.add(&fresh.stream, number, Ready::IN)?;
                    *client = fresh;
                    Ok(())
                }
                _ => bail!("the proxy closed the connection within an answer"),
            };
        }
        let rest = match &mut client.answer {
            Answer::Idle => bail!("the proxy sent what nobody asked for"),
            Answer::Message(left) => {
                ensure!(read <= *left, "more came than one message");
                *left -= read;
                *left
            }
            Answer::Body(left) => {
                ensure!(read <= *left, "the answer is longer than it says");
                *left -= read;
                if self.load.what == What::Download {
                    self.counted.bytes += read as u64;
                }
                *left
            }
            Answer::Head(before) => {
                let joined;
                let bytes = if before.is_empty() {
                    &self.scratch[..read]
                } else {
                    before.extend_from_slice(&self.scratch[..read]);
                    joined = std::mem::take(before);
                    &joined[..]
                };
                let Some((head, length)) = parse(bytes)? else {
                    client.answer = Answer::Head(bytes.to_vec());
                    return Ok(());
                };
                let body = bytes.len() - head;
                ensure!(body <= length, "the answer is longer than it says");
                if self.load.what == What::Download {
                    self.counted.bytes += body as u64;
                }
                client.answer = Answer::Body(length - body);
                length - body
            }
        };
        if rest > 0 {
            return Ok(());
        }
        client.used = true;
        client.answer = Answer::Idle;
        let now = Instant::now();
        self.last_answer = now;
        self.counted.completed += 1;
        self.counted.latencies_us.push(now.duration_since(client.due).as_secs_f64() * 1e6);
        match self.load.pace {
            Pace::Closed => self.ask(number, now),
            Pace::Open(_) => match self.late.pop_front() {
                Some(due) => self.ask(number, due),
                None => {
                    self.idle.push(number);
                    Ok(())
                }
            },
        }
    }
}

impl Client {
    fn new(load: &Load, number: usize) -> anyhow::Result<Self> {
        let mut stream =
            connect(load.address, number).with_context(|| format!("can't connect to {}", load.address))?;
        let mut request = Vec::new();
        if load.what == What::Message {
            open_websocket(&mut stream)?;
            request = message();
        }
        stream.set_nonblocking(true)?;
        let (answer, due) = (Answer::Idle, Instant::now());
        Ok(Self { stream, answer, request, written: 0, used: false, due, waits_to_write: false })
    }
}

/// Bytes of a message's payload.
const PAYLOAD: u8 = 64;
/// Bytes of the answer to it: not masked.
const MESSAGE_ANSWER: usize = 2 + PAYLOAD as usize;

/// One binary frame, masked with zeros (RFC 6455, 5.2).
fn message() -> Vec<u8> {
    let mut frame = vec![0x82, 0x80 | PAYLOAD, 0, 0, 0, 0];
    frame.resize(frame.len() + usize::from(PAYLOAD), b'm');
    frame
}

fn open_websocket(stream: &mut TcpStream) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(
        b"GET /ws HTTP/1.1\r\nhost: bench.localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
          sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(stream.read(&mut byte)? == 1, "the proxy closed the connection instead of upgrading it");
        head.extend(byte);
    }
    ensure!(
        head.starts_with(b"HTTP/1.1 101 "),
        "the upgrade was answered {:?}",
        String::from_utf8_lossy(&head[..head.len().min(40)])
    );
    Ok(())
}

fn write_request(request: &mut Vec<u8>, what: What, route: usize) {
    request.clear();
    request.extend_from_slice(match what {
        What::Small | What::Message => b"GET / HTTP/1.1\r\nhost: ",
        What::Download => b"GET /10m HTTP/1.1\r\nhost: ",
        What::Upload => b"POST /upload HTTP/1.1\r\nhost: ",
    });
    if route == 0 {
        request.extend_from_slice(b"bench");
    } else {
        request.extend_from_slice(OTHER.as_bytes());
        let mut digits = [0; 20];
        let (mut at, mut left) = (digits.len(), route - 1);
        loop {
            at -= 1;
            digits[at] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        request.extend_from_slice(&digits[at..]);
    }
    request.extend_from_slice(
        b".localhost\r\nuser-agent: bench/1\r\naccept: */*\r\naccept-language: en\r\ncookie: session=0123456789abcdef\r\n",
    );
    if what == What::Upload {
        let length = format!("content-type: application/octet-stream\r\ncontent-length: {LARGE}\r\n");
        request.extend_from_slice(length.as_bytes());
    }
    request.extend_from_slice(b"\r\n");
}

/// Length of the head and of the body of an answer; none while the head is not whole.
fn parse(bytes: &[u8]) -> anyhow::Result<Option<(usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut answer = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = answer.parse(bytes).context("the answer can't be read")? else {
        return Ok(None);
    };
    if answer.code != Some(200) {
        let text = String::from_utf8_lossy(&bytes[head..bytes.len().min(head + 120)]);
        bail!("answered {}: {}", answer.code.unwrap_or_default(), text.trim());
    }
    let length = answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length
        .and_then(|header| std::str::from_utf8(header.value).ok())
        .and_then(|value| value.trim().parse().ok());
    Ok(Some((head, length.context("the answer does not say how long it is")?)))
}

/// Connections that each made one request, and are kept open.
pub struct Held(#[expect(dead_code, reason = "open as long as this lives")] Vec<TcpStream>);

/// Opens `count` of them, 64 at a time.
///
/// # Errors
/// Where one can't be opened or is not answered.
pub fn hold(address: SocketAddr, count: usize) -> anyhow::Result<Held> {
    let mut request = Vec::new();
    write_request(&mut request, What::Small, 0);
    let mut held = Vec::with_capacity(count);
    let mut scratch = vec![0; 16 * 1024];
    while held.len() < count {
        let first = held.len();
        for number in first..count.min(first + 64) {
            let mut stream =
                connect(address, number).with_context(|| format!("connection {number} was refused"))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(&request)?;
            held.push(stream);
        }
        for (number, stream) in held.iter_mut().enumerate().skip(first) {
            let mut answer = Vec::new();
            loop {
                let read = stream
                    .read(&mut scratch)
                    .with_context(|| format!("connection {number} got no answer"))?;
                ensure!(read > 0, "connection {number} was closed");
                answer.extend_from_slice(&scratch[..read]);
                if parse(&answer)?.is_some_and(|(head, body)| answer.len() >= head + body) {
                    break;
                }
            }
        }
    }
    Ok(Held(held))
}

/// One request, for knowing whether a proxy serves yet.
///
/// # Errors
/// Where it is not answered with 200 within `patience`.
pub fn ask(address: SocketAddr, route: usize, patience: Duration) -> anyhow::Result<()> {
    let mut request = Vec::new();
    write_request(&mut request, What::Small, route);
    let mut stream = connect(address, 0)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(&request)?;
    let mut answer = Vec::new();
    let mut scratch = vec![0; 16 * 1024];
    loop {
        let read = stream.read(&mut scratch)?;
        ensure!(read > 0, "closed");
        answer.extend_from_slice(&scratch[..read]);
        if parse(&answer)?.is_some_and(|(head, body)| answer.len() >= head + body) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_those_of_the_routes() {
        let mut request = Vec::new();
        let hosts: Vec<String> = [0, 1, 2, 11, 1_000_000]
            .into_iter()
            .map(|route| {
                write_request(&mut request, What::Small, route);
                let text = String::from_utf8(request.clone()).unwrap();
                text.lines().nth(1).unwrap().to_owned()
            })
            .collect();
        let expected = super::super::names(12).collect::<Vec<_>>();
        assert_eq!(hosts[0], format!("host: {}", expected[0]));
        assert_eq!(hosts[1], format!("host: {}", expected[1]));
        assert_eq!(hosts[2], format!("host: {}", expected[2]));
        assert_eq!(hosts[3], format!("host: {}", expected[11]));
        assert_eq!(hosts[4], "host: other-999999.localhost");
    }

    #[test]
    fn answers_are_measured_or_refused() {
        assert!(parse(b"HTTP/1.1 200 OK\r\ncontent-le").unwrap().is_none());
        let (head, body) = parse(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel").unwrap().unwrap();
        assert_eq!((head, body), (38, 5));
        assert!(parse(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
