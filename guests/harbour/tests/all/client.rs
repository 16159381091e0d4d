//! A small HTTP/1.1 client, so that the tests see the bytes of the connection.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

/// An answer whose body has not been read yet.
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    reader: BufReader<TcpStream>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(one, _)| one == name).map(|(_, value)| value.as_str())
    }

    /// The next chunk of a chunked body; none at its end.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let mut size = String::new();
        self.reader.read_line(&mut size).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).expect("a chunk begins with its size");
        let mut chunk = vec![0; size + 2];
        self.reader.read_exact(&mut chunk).unwrap();
        chunk.truncate(size);
        (size > 0).then_some(chunk)
    }

    /// The whole body.
    pub fn body(mut self) -> Vec<u8> {
        if self.header("transfer-encoding") == Some("chunked") {
            let mut body = Vec::new();
            while let Some(chunk) = self.chunk() {
                body.extend(chunk);
            }
            return body;
        }
        let length = self.header("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body).unwrap();
        body
    }

    pub fn text(self) -> String {
        String::from_utf8(self.body()).unwrap()
    }

    pub fn json(self) -> Value {
        serde_json::from_slice(&self.body()).unwrap()
    }
}

/// Sends a request and reads the head of the answer. `headers` end with CRLF each.
pub fn send(address: &str, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
    let mut stream = open(address, method, path, headers, body.len());
    stream.write_all(body).unwrap();
    answer(stream)
}

/// Sends the head of a request whose body follows.
pub fn open(address: &str, method: &str, path: &str, headers: &str, length: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {length}\r\n{headers}\r\n"
    )
    .unwrap();
    stream
}

/// Reads the head of an answer.
pub fn answer(stream: TcpStream) -> Answer {
    let mut reader = BufReader::new(stream);
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    let status = line().split(' ').nth(1).expect("a status line").parse().unwrap();
    let mut headers = Vec::new();
    loop {
        let line = line();
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    Answer { status, headers, reader }
}

pub fn get(address: &str, path: &str) -> Answer {
    send(address, "GET", path, "", b"")
}

/// Sends JSON.
pub fn post(address: &str, path: &str, body: &Value) -> Answer {
    send(address, "POST", path, "content-type: application/json\r\n", body.to_string().as_bytes())
}

/// One event of a stream: its name and data.
pub fn event(stream: &mut Answer) -> (String, Value) {
    let mut text = String::new();
    while !text.ends_with("\n\n") {
        text.push_str(std::str::from_utf8(&stream.chunk().expect("the stream goes on")).unwrap());
    }
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
    (field("event:").to_owned(), serde_json::from_str(field("data:")).unwrap())
}

/// The next event of that name; others, such as the tide's, are passed over.
pub fn event_named(stream: &mut Answer, name: &str) -> Value {
    loop {
        let (found, data) = event(stream);
        if found == name {
            return data;
        }
    }
}
