//! Output of an execution: records of one byte of kind, four of length (big-endian) and the payload.
//!
//! A cursor counts bytes of this encoding. The stream ends after one [`Frame::Exit`], which is the
//! authoritative end; a stream that ends without one was cut, and the reader attaches again.

use crate::Exit;

const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const EXIT: u8 = 3;
/// Bytes before the payload.
const HEADER: usize = 5;
/// The longest payload that is written or accepted.
pub const MAX_PAYLOAD: usize = 64 * 1024;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    Exit(Exit),
}

/// Bytes that are no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameError {
    UnknownKind(u8),
    TooLong(usize),
    InvalidExit,
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UnknownKind(kind) => {
                write!(f, "the execution's output has a record of the unknown kind {kind}")
            }
            Self::TooLong(length) => write!(
                f,
                "the execution's output has a record of {length} bytes: at most {MAX_PAYLOAD} are allowed"
            ),
            Self::InvalidExit => f.write_str("the execution's output has an exit record that can't be read"),
        }
    }
}

impl std::error::Error for FrameError {}

impl Frame {
    /// Appends the record; output longer than [`MAX_PAYLOAD`] as several.
    pub fn encode(&self, into: &mut Vec<u8>) {
        match self {
            Self::Stdout(bytes) => Self::encode_output(STDOUT, bytes, into),
            Self::Stderr(bytes) => Self::encode_output(STDERR, bytes, into),
            Self::Exit(exit) => {
                let json = serde_json::to_vec(exit).unwrap_or_default();
                Self::encode_record(EXIT, &json, into);
            }
        }
    }

    fn encode_output(kind: u8, bytes: &[u8], into: &mut Vec<u8>) {
        for chunk in bytes.chunks(MAX_PAYLOAD) {
            Self::encode_record(kind, chunk, into);
        }
    }

    fn encode_record(kind: u8, payload: &[u8], into: &mut Vec<u8>) {
        into.push(kind);
        into.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        into.extend_from_slice(payload);
    }
}

/// Reads records from bytes that come in pieces.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    consumed: u64,
}

impl Decoder {
    /// Adds what has come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes of whole records read so far: what a cursor must grow by to attach again.
    #[must_use]
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// The next whole record, where there is one.
    ///
    /// # Errors
    /// Where the bytes are no record.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(header) = self.buffer.first_chunk::<HEADER>() else { return Ok(None) };
        let [kind, a, b, c, d] = *header;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > MAX_PAYLOAD {
            return Err(FrameError::TooLong(length));
        }
        if !matches!(kind, STDOUT | STDERR | EXIT) {
            return Err(FrameError::UnknownKind(kind));
        }
        let Some(payload) = self.buffer.get(HEADER..HEADER + length) else { return Ok(None) };
        let frame = match kind {
            STDOUT => Frame::Stdout(payload.to_vec()),
            STDERR => Frame::Stderr(payload.to_vec()),
            _ => Frame::Exit(serde_json::from_slice(payload).map_err(|_| FrameError::InvalidExit)?),
        };
        self.buffer.drain(..HEADER + length);
        self.consumed += (HEADER + length) as u64;
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames() -> impl Strategy<Value = Vec<Frame>> {
        let bytes = || prop::collection::vec(any::<u8>(), 1..200);
        let frame = prop_oneof![
            bytes().prop_map(Frame::Stdout),
            bytes().prop_map(Frame::Stderr),
            any::<i32>().prop_map(|code| Frame::Exit(Exit::Code(code))),
        ];
        prop::collection::vec(frame, 0..10)
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(frames in frames(), piece in 1_usize..50) {
            let mut bytes = Vec::new();
            frames.iter().for_each(|frame| frame.encode(&mut bytes));
            let mut decoder = Decoder::default();
            let mut read = Vec::new();
            for part in bytes.chunks(piece) {
                decoder.push(part);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    read.push(frame);
                }
            }
            prop_assert_eq!(read, frames);
            prop_assert_eq!(decoder.consumed(), bytes.len() as u64);
        }
    }
}
