"""HTTP/2 on bytes: frames and field blocks as somebody writes them who keeps to no rule, and a reader of answers.

Field blocks are literals without indexing (RFC 7541, section 6.2.2), so that a case is the same bytes whatever
stands before it on the connection.
"""

from __future__ import annotations

import ssl
import struct
from dataclasses import dataclass, field

from hpack import Decoder

from .wire import Closed, Connection

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# Types (RFC 9113, section 6).
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
# Flags.
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITISED = 0x1, 0x1, 0x4, 0x8, 0x20
# Error codes (RFC 9113, section 7).
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR = range(7)
REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM, INADEQUATE_SECURITY, HTTP_1_1_REQUIRED = range(7, 14)

#: (name, value), text as latin-1.
Field = tuple[str, str]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", length: int | None = None) -> bytes:
    """A frame; `length` where it is to say another length than it has."""
    size = len(payload) if length is None else length
    return struct.pack(">I", size)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def integer(value: int, bits: int, first: int) -> bytes:
    """RFC 7541, section 5.1."""
    limit = (1 << bits) - 1
    if value < limit:
        return bytes([first | value])
    out, value = [first | limit], value - limit
    while value >= 128:
        out.append(value % 128 | 128)
        value //= 128
    return bytes([*out, value])


def literal(name: str, value: str) -> bytes:
    texts = (text.encode("latin-1") for text in (name, value))
    return b"\x00" + b"".join(integer(len(text), 7, 0) + text for text in texts)


def block(*fields: Field) -> bytes:
    return b"".join(literal(name, value) for name, value in fields)


def headers(stream: int, *fields: Field, end: bool = True, flags: int = 0, prefix: bytes = b"", suffix: bytes = b"") -> bytes:
    """HEADERS with the whole block. `prefix` and `suffix`: what the flags put around it."""
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0) | flags, stream, prefix + block(*fields) + suffix)


def data(stream: int, payload: bytes = b"", end: bool = True) -> bytes:
    """DATA in frames of at most 16,384 bytes."""
    pieces = [payload[at : at + 16384] for at in range(0, len(payload), 16384)] or [b""]
    last = len(pieces) - 1
    return b"".join(frame(DATA, END_STREAM if end and at == last else 0, stream, piece) for at, piece in enumerate(pieces))


def settings(*values: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in values))


def number(value: int) -> bytes:
    return struct.pack(">I", value)


@dataclass
class Stream:
    """What came on one stream."""

    status: int | None = None
    fields: list[Field] = field(default_factory=list)
    trailers: list[Field] = field(default_factory=list)
    informational: list[int] = field(default_factory=list)
    body: bytes = b""
    ended: bool = False
    #: The code of RST_STREAM.
    reset: int | None = None

    def get(self, name: str) -> str | None:
        return next((value for known, value in self.fields if known == name), None)


class Client(Connection):
    """A connection that speaks HTTP/2 from its first byte, or by ALPN. It acknowledges SETTINGS and PING, and no more."""

    def __init__(self, port: int, *, tls: ssl.SSLContext | None = None, host: str = "app.localhost", greet: bool = True) -> None:
        super().__init__(port)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname=host)
        self.streams: dict[int, Stream] = {}
        self.settings: dict[int, int] = {}
        #: The code of GOAWAY.
        self.goaway: int | None = None
        self.closed = False
        self.pings = 0
        self._decoder = Decoder()
        self._decoder.max_header_list_size = 1 << 20
        self._block = b""
        if greet:
            self.send(PREFACE + settings())

    def stream(self, number: int) -> Stream:
        return self.streams.setdefault(number, Stream())

    def read(self) -> None:
        """One frame, or the end of the connection. TimeoutError where nothing comes."""
        try:
            head = self._exactly(9)
            payload = self._exactly(int.from_bytes(head[:3], "big"))
        except (Closed, ConnectionError, ssl.SSLError):
            self.closed = True
            return
        self._take(head[3], head[4], int.from_bytes(head[5:], "big") & 0x7FFFFFFF, payload)

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            for at in range(0, len(payload), 6):
                name, value = struct.unpack(">HI", payload[at : at + 6])
                self.settings[name] = value
            self.send(frame(SETTINGS, ACK, 0))
        elif kind == PING:
            if flags & ACK:
                self.pings += 1
            else:
                self.send(frame(PING, ACK, 0, payload))
        elif kind == GOAWAY:
            code = int.from_bytes(payload[4:8], "big")
            # A graceful end is told twice; the code that tells why stays.
            self.goaway = code if self.goaway in (None, NO_ERROR) else self.goaway
        elif kind == RST_STREAM:
            self.stream(stream).reset = int.from_bytes(payload, "big")
        elif kind in (HEADERS, CONTINUATION):
            self._head(kind, flags, stream, payload)
        elif kind == DATA:
            to = self.stream(stream)
            to.body += payload
            to.ended |= bool(flags & END_STREAM)

    def _head(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        self._block = payload if kind == HEADERS else self._block + payload
        to = self.stream(stream)
        if kind == HEADERS:
            to.ended |= bool(flags & END_STREAM)
        if not flags & END_HEADERS:
            return
        fields = [(_text(name), _text(value)) for name, value in self._decoder.decode(self._block, raw=True)]
        if to.status is not None:
            to.trailers = fields
            return
        status = int(dict(fields)[":status"])
        if status < 200:
            to.informational.append(status)
        else:
            to.status, to.fields = status, fields

    def until_done(self, stream: int) -> Stream:
        """Reads until the stream has ended, was reset, or the connection is gone."""
        to = self.stream(stream)
        while not (to.ended or to.reset is not None or self.closed):
            self.read()
        return to

    def until_closed(self) -> None:
        while not self.closed:
            self.read()


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")
