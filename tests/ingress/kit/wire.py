"""A client's end of an HTTP/1 connection, on bytes: it sends anything and reads answers strictly."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field

#: Seconds without a byte after which a peer is taken for stuck. Only a fault takes that long.
PATIENCE = 15


class Closed(Exception):
    """The peer closed (or reset) the connection where an answer was due."""


@dataclass
class Answer:
    """One final answer, with the informational ones (their statuses) that came before it."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes = b""
    informational: list[int] = field(default_factory=list)

    def get(self, name: str) -> str | None:
        return next((value for known, value in self.fields if known == name), None)

    def closes(self) -> bool:
        return "close" in (self.get("connection") or "").lower()


class Connection:
    """A TCP connection to a port of 127.0.0.1."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def send(self, data: bytes) -> None:
        """Sends all of it; a peer that has closed meanwhile is no error here: its answer may still be read."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def end(self) -> None:
        """Nothing more is sent; reading goes on."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _more(self) -> None:
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            raise Closed(f"after {self.buffer[:200]!r}")
        self.buffer += data

    def _until(self, end: bytes) -> bytes:
        while end not in self.buffer:
            self._more()
        taken, _, self.buffer = self.buffer.partition(end)
        return taken

    def _exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            self._more()
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def answer(self, method: str = "GET") -> Answer:
        """Reads one answer to its end. TimeoutError where the peer is stuck."""
        informational: list[int] = []
        while True:
            head = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
            line = re.fullmatch(r"HTTP/1\.[01] ([1-9][0-9]{2}) .*", head[0])
            if not line:
                raise ValueError(f"no status line: {head[0][:200]!r}")
            fields = [(name.lower(), value.strip()) for name, _, value in (text.partition(":") for text in head[1:])]
            answer = Answer(int(line[1]), fields, informational=informational)
            if answer.status >= 200 or answer.status == 101:
                break
            informational.append(answer.status)
        if method == "HEAD" or answer.status in (101, 204, 304):
            return answer
        if answer.get("transfer-encoding"):
            while size := int(self._until(b"\r\n").split(b";")[0], 16):
                answer.body += self._exactly(size)
                if self._exactly(2) != b"\r\n":
                    raise ValueError("a chunk does not end where it should")
            while self._until(b"\r\n"):
                pass
        elif (length := answer.get("content-length")) is not None:
            answer.body = self._exactly(int(length))
        else:
            answer.body = self.rest()
        return answer

    def rest(self) -> bytes:
        """All until the peer closes. TimeoutError where it does not."""
        try:
            while True:
                self._more()
        except Closed:
            rest, self.buffer = self.buffer, b""
            return rest
