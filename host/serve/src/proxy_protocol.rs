//! PROXY protocol, version 2: who the client is, said by the load balancer before the client's first byte.
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>, §2.2.)
//!
//! Always holds: exactly the header is read, so what follows it (a TLS hello, a request) is still in the
//! stream; nothing is read beyond [`MOST`] bytes; a checksum that is there is checked. The header is believed as it
//! stands: only listen for it where nobody but the load balancer can connect.
//!
//! Deliberately absent: version 1 (text, of unknown length, which can't be read without reading too far), the
//! limit of time (the caller has a clock), and the meaning of the extra fields but the checksum.

use std::io;
use std::net::SocketAddr;

use proxy_header::{ParseConfig, Protocol, Tlv};
use tokio::io::{AsyncRead, AsyncReadExt};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\x00\r\nQUIT\n";
/// Signature, version and command, family, length.
const FIXED: usize = 16;
/// The longest addresses: two UNIX paths.
const LONGEST_ADDRESSES: usize = 216;
/// Extra fields that are passed over; the specification's smallest buffer is 536 bytes for everything.
const MOST_EXTRA: usize = 2_048;
/// The longest header that is read, in bytes.
pub const MOST: usize = FIXED + LONGEST_ADDRESSES + MOST_EXTRA;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// A connection of the load balancer itself, such as a health check: the addresses are the connection's own.
    Local,
    /// A client's connection over TCP.
    Client {
        /// The client.
        source: SocketAddr,
        /// What the client connected to.
        destination: SocketAddr,
    },
    /// A client's connection of a kind that has no address here (UNIX socket, unspecified).
    Unknown,
}

impl ProxyHeader {
    /// The client's address, where it has one.
    #[must_use]
    pub fn source(&self) -> Option<SocketAddr> {
        match self {
            Self::Client { source, .. } => Some(*source),
            Self::Local | Self::Unknown => None,
        }
    }
}

/// Why there is no header. The connection is of no use then.
#[derive(Debug, thiserror::Error)]
pub enum ProxyProtocolError {
    #[error("the connection ended in its PROXY header")]
    Ended,
    #[error("the PROXY header can't be read")]
    Io(#[source] io::Error),
    #[error(
        "it begins without a PROXY header: have the load balancer send version 2 (HAProxy: `send-proxy-v2`), or switch \
         proxyProtocol off here"
    )]
    Missing,
    #[error(
        "its PROXY header is of version 1: have the load balancer send version 2 (HAProxy: `send-proxy-v2`)"
    )]
    Version1,
    #[error("its PROXY header is of version {0}, which nobody has defined")]
    Version(u8),
    #[error("its PROXY header has {0} bytes; {MOST} are the most")]
    TooLong(usize),
    #[error("its PROXY header is malformed: {0}")]
    Malformed(&'static str),
    #[error("its PROXY header is damaged: the checksum does not fit")]
    Checksum,
}

/// Reads the header that `stream` begins with, and nothing after it.
///
/// Not cancel safe: a stream of which a part was read is of no use.
///
/// # Errors
/// See [`ProxyProtocolError`]; a first byte that can't be one's is enough.
pub async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<ProxyHeader, ProxyProtocolError> {
    let mut buffer = [0; MOST];
    let mut filled = 0;
    while filled < FIXED {
        let read = stream.read(&mut buffer[filled..FIXED]).await.map_err(ProxyProtocolError::Io)?;
        if read == 0 {
            return Err(ProxyProtocolError::Ended);
        }
        filled += read;
        // Who sends something else, and waits for an answer, need not wait.
        begins(&buffer[..filled])?;
    }
    let length = length(&buffer[..FIXED])?;
    match stream.read_exact(&mut buffer[FIXED..length]).await {
        Ok(_) => parse(&mut buffer[..length]),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(ProxyProtocolError::Ended),
        Err(error) => Err(ProxyProtocolError::Io(error)),
    }
}

/// Whether `bytes` (at most [`FIXED`]) can be the beginning of a header.
fn begins(bytes: &[u8]) -> Result<(), ProxyProtocolError> {
    let signature = &bytes[..bytes.len().min(SIGNATURE.len())];
    if SIGNATURE.starts_with(signature) {
        return Ok(());
    }
    let text = b"PROXY ";
    if text.starts_with(&bytes[..bytes.len().min(text.len())]) && bytes.len() < text.len() {
        return Ok(());
    }
    Err(if bytes.starts_with(text) { ProxyProtocolError::Version1 } else { ProxyProtocolError::Missing })
}

/// Of the whole header, by its first [`FIXED`] bytes.
fn length(fixed: &[u8]) -> Result<usize, ProxyProtocolError> {
    if fixed[12] >> 4 != 2 {
        return Err(ProxyProtocolError::Version(fixed[12] >> 4));
    }
    let length = FIXED + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if length > MOST { Err(ProxyProtocolError::TooLong(length)) } else { Ok(length) }
}

/// Of a whole header. The checksum's place in it is zeroed.
fn parse(header: &mut [u8]) -> Result<ProxyHeader, ProxyProtocolError> {
    match header[12] & 0x0f {
        // Whatever else stands in it is to be passed over.
        0 => return Ok(ProxyHeader::Local),
        1 => {}
        _ => return Err(ProxyProtocolError::Malformed("an unknown command")),
    }
    let addresses = match header[13] {
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        0x31 => LONGEST_ADDRESSES,
        0x12 | 0x22 | 0x32 => return Err(ProxyProtocolError::Malformed("datagrams over TCP")),
        _ => return Err(ProxyProtocolError::Malformed("an unknown address family")),
    };
    if header.len() < FIXED + addresses {
        return Err(ProxyProtocolError::Malformed("shorter than its addresses"));
    }
    if header.len() - FIXED - addresses > MOST_EXTRA {
        return Err(ProxyProtocolError::TooLong(header.len()));
    }
    let parsed = {
        let config = ParseConfig { include_tlvs: true, allow_v1: false, allow_v2: true };
        let (parsed, _) = proxy_header::ProxyHeader::parse(header, config)
            .map_err(|_| ProxyProtocolError::Malformed("it can't be read"))?;
        parsed.into_owned()
    };
    let mut expected = None;
    for field in parsed.tlvs() {
        match field {
            Ok(Tlv::Crc32c(checksum)) => expected = Some(checksum),
            Ok(_) => {}
            Err(_) => return Err(ProxyProtocolError::Malformed("an extra field is longer than the header")),
        }
    }
    if let Some(expected) = expected {
        blank_checksum(&mut *header, FIXED + addresses);
        if crc32c(header) != expected {
            return Err(ProxyProtocolError::Checksum);
        }
    }
    Ok(match parsed.proxied_address() {
        Some(address) if address.protocol == Protocol::Stream => {
            ProxyHeader::Client { source: address.source, destination: address.destination }
        }
        _ => ProxyHeader::Unknown,
    })
}

/// The checksum counts as zeroes in its own sum (§2.2.3). The fields are known to be whole.
fn blank_checksum(header: &mut [u8], fields: usize) {
    const CHECKSUM: u8 = 0x03;
    let mut at = fields;
    while let Some(&[kind, high, low]) = header.get(at..at + 3) {
        let value = at + 3;
        at = value + usize::from(u16::from_be_bytes([high, low]));
        if kind == CHECKSUM
            && let Some(value) = header.get_mut(value..at)
        {
            value.fill(0);
        }
    }
}

/// CRC-32C (Castagnoli), reflected.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut value = byte as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 { value >> 1 ^ 0x82f6_3b78 } else { value >> 1 };
                bit += 1;
            }
            table[byte] = value;
            byte += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |sum: u32, &byte| sum >> 8 ^ TABLE[usize::from(sum as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use proptest::prelude::*;
    use proxy_header::ProxiedAddress;
    use tokio::io::ReadBuf;

    use super::*;

    /// Gives bytes in pieces, then ends.
    struct Pieces<'a> {
        left: &'a [u8],
        piece: usize,
    }

    impl AsyncRead for Pieces<'_> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let size = self.left.len().min(self.piece).min(buf.remaining());
            buf.put_slice(&self.left[..size]);
            self.left = &self.left[size..];
            Poll::Ready(Ok(()))
        }
    }

    /// What is read, and the bytes that stay.
    fn read_all(bytes: &[u8], piece: usize) -> (Result<ProxyHeader, ProxyProtocolError>, usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut stream = Pieces { left: bytes, piece };
        let result = runtime.block_on(read(&mut stream));
        (result, stream.left.len())
    }

    fn header(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([0x20 | command, family]);
        bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn encoded(address: Option<ProxiedAddress>, extra: &[(u8, Vec<u8>)], checksum: bool) -> Vec<u8> {
        let mut header = address
            .map_or_else(proxy_header::ProxyHeader::with_local, proxy_header::ProxyHeader::with_address);
        for (kind, value) in extra {
            header.append_tlv(Tlv::Custom(*kind, value.as_slice().into()));
        }
        if checksum {
            header.append_tlv(Tlv::Crc32c(0));
        }
        let mut bytes = vec![0; 65_536];
        let length = header.encode_to_slice_v2(&mut bytes).unwrap();
        bytes.truncate(length);
        if checksum {
            let sum = crc32c(&bytes);
            bytes[length - 4..].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    }

    fn error(bytes: &[u8]) -> String {
        read_all(bytes, 1).0.unwrap_err().to_string()
    }

    #[test]
    fn the_checksum_is_castagnolis() {
        // RFC 3720, B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn what_is_not_a_header_is_named() {
        assert!(error(b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n").contains("version 1"));
        for other in
            ["GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x02\x00", "PRI * HTTP/2.0\r\n", "P?", "\r\n\r\nx"]
        {
            assert!(error(other.as_bytes()).contains("without a PROXY header"), "{other:?}");
        }
        assert!(error(b"").contains("ended"));
        assert!(error(b"\r\n\r\n").contains("ended"));
        let mut bytes = header(1, 0x11, &[0; 12]);
        bytes[12] = 0x11;
        assert!(error(&bytes).contains("of version 1, which"));
        assert!(error(&header(2, 0x11, &[0; 12])).contains("unknown command"));
        assert!(error(&header(1, 0x12, &[0; 12])).contains("datagrams"));
        assert!(error(&header(1, 0x41, &[0; 12])).contains("family"));
        assert!(error(&header(1, 0x21, &[0; 35])).contains("shorter"));
        assert!(error(&header(1, 0x11, &[0; 14])).contains("extra field"));
        assert!(error(&header(1, 0x11, &vec![0; MOST])).contains("the most"));
        assert!(error(&header(1, 0x00, &vec![0; MOST_EXTRA + 1])).contains("the most"));
    }

    #[test]
    fn kinds_without_an_address_are_served() {
        assert_eq!(read_all(&header(0, 0x00, &[]), 5).0.unwrap(), ProxyHeader::Local);
        assert_eq!(read_all(&header(0, 0xff, &[1, 2, 3]), 5).0.unwrap(), ProxyHeader::Local);
        assert_eq!(read_all(&header(1, 0x00, &[]), 5).0.unwrap(), ProxyHeader::Unknown);
        assert_eq!(read_all(&header(1, 0x31, &[7; LONGEST_ADDRESSES]), 5).0.unwrap(), ProxyHeader::Unknown);
    }

    #[test]
    fn a_flipped_bit_fails_the_checksum() {
        let source = SocketAddr::from(([203, 0, 113, 9], 40_000));
        let destination = SocketAddr::from(([192, 0, 2, 1], 443));
        let good = encoded(Some(ProxiedAddress::stream(source, destination)), &[(0xe0, vec![1, 2])], true);
        assert_eq!(read_all(&good, 7).0.unwrap(), ProxyHeader::Client { source, destination });
        for at in FIXED..FIXED + 12 {
            let mut bad = good.clone();
            bad[at] ^= 4;
            assert!(matches!(read_all(&bad, 7).0, Err(ProxyProtocolError::Checksum)), "{at}");
        }
    }

    fn addresses() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
        let v4 = || any::<[u8; 4]>().prop_map(|bytes| IpAddr::from(Ipv4Addr::from(bytes)));
        let v6 = || any::<[u8; 16]>().prop_map(|bytes| IpAddr::from(Ipv6Addr::from(bytes)));
        let pair = prop_oneof![(v4(), v4()), (v6(), v6())];
        (pair, any::<u16>(), any::<u16>()).prop_map(|((source, destination), from, to)| {
            (SocketAddr::new(source, from), SocketAddr::new(destination, to))
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_no_byte_more(
            (source, destination) in addresses(),
            extra in proptest::collection::vec((0xe0u8..=0xef, proptest::collection::vec(any::<u8>(), 0..200)), 0..5),
            checksum in any::<bool>(),
            rest in proptest::collection::vec(any::<u8>(), 0..50),
            piece in 1usize..100,
        ) {
            let mut bytes = encoded(Some(ProxiedAddress::stream(source, destination)), &extra, checksum);
            let length = bytes.len();
            bytes.extend(&rest);
            let (result, left) = read_all(&bytes, piece);
            prop_assert_eq!(result.unwrap(), ProxyHeader::Client { source, destination });
            prop_assert_eq!(left, rest.len());
            // Cut short anywhere: it has ended, nothing else.
            for cut in [0, 1, 12, 16, length / 2, length - 1] {
                prop_assert!(matches!(read_all(&bytes[..cut.min(length - 1)], piece).0, Err(ProxyProtocolError::Ended)));
            }
        }

        #[test]
        fn no_bytes_are_fatal(bytes in proptest::collection::vec(any::<u8>(), 0..300), command: u8, family: u8, piece in 1usize..50) {
            let _ = read_all(&bytes, piece);
            let _ = read_all(&header(command & 0x0f, family, &bytes), piece);
            for family in [0x00, 0x11, 0x21, 0x31] {
                let _ = read_all(&header(1, family, &bytes), piece);
            }
        }
    }
}
