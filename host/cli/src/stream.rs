//! Answers that come over time: JSON a line (NDJSON), and server-sent events.

use bytes::{Buf, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use crate::failure::{ExitStatus, Failure};

/// The longest line or event that is read, in bytes.
const MAX_LINE: usize = 16 * 1024 * 1024;

/// Why no further line comes.
#[derive(Debug)]
pub enum Cut {
    /// The connection broke.
    Broken(String),
    /// The line was longer than any that the host writes.
    TooLong,
}

impl From<Cut> for Failure {
    fn from(cut: Cut) -> Self {
        match cut {
            Cut::Broken(cause) => {
                Self::new(ExitStatus::Unreachable, format!("the connection to the host broke: {cause}"))
            }
            Cut::TooLong => Self::other(format!("the host sent a line of more than {MAX_LINE} bytes")),
        }
    }
}

/// Whole lines of an answer's body. What follows the last line end is dropped: it was cut.
pub struct Lines {
    body: BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    buffer: BytesMut,
    /// Bytes of the buffer known to hold no line end.
    searched: usize,
}

impl Lines {
    #[must_use]
    pub fn of(response: reqwest::Response) -> Self {
        Self { body: response.bytes_stream().boxed(), buffer: BytesMut::new(), searched: 0 }
    }

    /// The next line without its end; none when the answer has ended as it should.
    ///
    /// # Errors
    /// Where it was cut.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Cut> {
        loop {
            if let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let mut line = self.buffer.split_to(self.searched + end).to_vec();
                self.buffer.advance(1);
                self.searched = 0;
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            if self.searched > MAX_LINE {
                return Err(Cut::TooLong);
            }
            match self.body.next().await {
                Some(Ok(bytes)) => self.buffer.extend_from_slice(&bytes),
                Some(Err(error)) => return Err(Cut::Broken(crate::client::innermost(&error))),
                None => return Ok(None),
            }
        }
    }

    /// The next line that is not empty, read as JSON.
    ///
    /// # Errors
    /// As [`next`](Self::next); a line that is not what was expected is an inner failure.
    pub async fn next_json<T: serde::de::DeserializeOwned>(
        &mut self,
    ) -> Result<Option<Result<T, Failure>>, Cut> {
        while let Some(line) = self.next().await? {
            if !line.is_empty() {
                return Ok(Some(serde_json::from_slice(&line).map_err(|error| {
                    Failure::other(format!("a line of the host's answer can't be read: {error}"))
                })));
            }
        }
        Ok(None)
    }

    /// The data of the next server-sent event (WHATWG HTML, section 9.2.6); comments are skipped.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn next_event(&mut self) -> Result<Option<Vec<u8>>, Cut> {
        let mut data: Option<Vec<u8>> = None;
        while let Some(line) = self.next().await? {
            if line.is_empty() {
                if let Some(data) = data.take() {
                    return Ok(Some(data));
                }
            } else if let Some(part) = line.strip_prefix(b"data:") {
                let part = part.strip_prefix(b" ").unwrap_or(part);
                match &mut data {
                    Some(data) => {
                        data.push(b'\n');
                        data.extend_from_slice(part);
                    }
                    None => data = Some(part.to_vec()),
                }
            }
        }
        Ok(None)
    }
}
