//! Apps: one that records what it gets, byte for byte, and answers what it is told; and sockets for those
//! that need more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::world::Raw;

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Counts connections, from 0.
    pub connection: usize,
    pub head: String,
    pub body: Vec<u8>,
    pub trailers: String,
}

impl Recorded {
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }
}

pub struct Origin {
    pub address: SocketAddr,
    pub recorded: Arc<Mutex<Vec<Recorded>>>,
    pub connections: Arc<AtomicUsize>,
}

pub const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

impl Origin {
    /// Answers always the same.
    pub async fn saying(answer: &'static str) -> Self {
        Self::new(move |_| answer.as_bytes().to_vec()).await
    }

    /// Reads whole requests, records them, answers; an empty answer closes the connection, as does one
    /// that says `Connection: close`.
    pub async fn new(answer: impl Fn(&Recorded) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let recorded = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let answer = Arc::new(answer);
        let (all, counter) = (Arc::clone(&recorded), Arc::clone(&connections));
        let address = listen(move |stream| {
            let (all, answer) = (Arc::clone(&all), Arc::clone(&answer));
            let connection = counter.fetch_add(1, Ordering::SeqCst);
            async move {
                let mut raw = Raw { stream, buffer: Vec::new() };
                while let Some(request) = read_request(&mut raw, connection).await {
                    let answer = answer(&request);
                    all.lock().push(request);
                    let closes =
                        answer.is_empty() || String::from_utf8_lossy(&answer).contains("Connection: close");
                    if raw.stream.write_all(&answer).await.is_err() || closes {
                        return;
                    }
                }
            }
        })
        .await;
        Self { address, recorded, connections }
    }

    pub fn last(&self) -> Recorded {
        self.recorded.lock().last().expect("nothing reached the origin").clone()
    }

    pub fn count(&self) -> usize {
        self.recorded.lock().len()
    }
}

async fn read_request(raw: &mut Raw, connection: usize) -> Option<Recorded> {
    while raw.buffer.is_empty() {
        if !raw.more().await {
            return None;
        }
    }
    let head = String::from_utf8(raw.until(b"\r\n\r\n").await).unwrap();
    let mut request = Recorded { connection, head, body: Vec::new(), trailers: String::new() };
    let length = request.all("content-length").first().map(|length| length.parse::<usize>().unwrap());
    if request.all("transfer-encoding") == ["chunked"] {
        assert_eq!(length, None, "two framings");
        loop {
            let size = raw.until(b"\r\n").await;
            let size = usize::from_str_radix(std::str::from_utf8(&size).unwrap().trim(), 16).unwrap();
            if size == 0 {
                break;
            }
            let chunk = raw.exactly(size).await;
            request.body.extend(chunk);
            raw.until(b"\r\n").await;
        }
        loop {
            let line = raw.until(b"\r\n").await;
            if line == b"\r\n" {
                break;
            }
            request.trailers.push_str(std::str::from_utf8(&line).unwrap());
        }
    } else if let Some(length) = length {
        request.body = raw.exactly(length).await;
    }
    Some(request)
}

/// Serves each connection by a task.
pub async fn listen<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}
