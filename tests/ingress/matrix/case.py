"""A case: bytes for ingress, and what has to come of them.

What is written in a case is what ought to be, by the RFC or the report that it names, whatever ingress does.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kit.stand import HOST

#: A request that must never get anywhere: it stands behind each refused one, on the same connection.
SMUGGLED = f"GET /smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()

Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Request:
    """What the origin must get: one request in one form, and nothing else.

    `fields` are all but those that frame the message (which the recorder judges by itself) and those that are
    ours to say (which have one right value); names in lower case. `status` is what the client must get back.
    """

    method: str = "GET"
    target: str = "/"
    fields: Fields = ()
    body: bytes = b""
    trailers: Fields = ()
    host: str = HOST
    status: int = 200
    #: The client speaks 1.0, and understands no informational answers.
    is_http10: bool = False


@dataclass(frozen=True)
class Refused:
    """One of these answers from ingress, after which the connection is closed; no byte at the origin.

    `code` is the stable code in the answer's JSON; None where a malformed head is answered without a text.
    """

    status: tuple[int, ...] = (400,)
    code: str | None = None


@dataclass(frozen=True)
class Answered:
    """An answer of ingress itself, after which the connection goes on: the request was in order."""

    status: int
    code: str


@dataclass(frozen=True)
class Broken:
    """The body is wrong, or does not come. Its head may have gone on; the origin never gets a whole request.

    The client gets one of these answers and then the end of the connection, or only that.
    """

    status: tuple[int, ...] = (400,)


@dataclass(frozen=True)
class Dropped:
    """The connection is closed, with or without a 400: what came was not HTTP. No byte at the origin."""


Outcome = Request | Refused | Answered | Broken | Dropped


@dataclass(frozen=True)
class Case:
    """`send` goes out at once, or in pieces, each after the answer to the one before."""

    name: str
    send: bytes | tuple[bytes, ...]
    expect: tuple[Outcome, ...]
    #: The RFC's section, or the report of the attack.
    why: str
    #: The client ends its side after sending.
    half_closed: bool = False
    #: Ingress ends the connection after the last answer.
    closes: bool = False
    #: Only the recorder plays the part that this case needs.
    recorder_only: bool = False
    #: Whether a second request stands behind a refused one (not where it would become the missing body).
    smuggles: bool = True

    def pieces(self) -> tuple[bytes, ...]:
        return (self.send,) if isinstance(self.send, bytes) else self.send


@dataclass
class Table:
    """Cases of one subject."""

    cases: list[Case] = field(default_factory=list)

    def add(self, name: str, send: bytes | tuple[bytes, ...], *expect: Outcome, why: str, **rest: bool) -> None:
        self.cases.append(Case(name, send, expect, why, **rest))


def head(line: str | bytes, *lines: str | bytes, host: str | None = f"Host: {HOST}") -> bytes:
    """A head: request line, the Host line, then the lines given. Text is latin-1, so `\\xff` is that byte."""
    all_lines = [line, *([host] if host is not None else []), *lines, "", ""]
    return b"\r\n".join(text.encode("latin-1") if isinstance(text, str) else text for text in all_lines)


def get(*lines: str | bytes, target: str = "/") -> bytes:
    return head(f"GET {target} HTTP/1.1", *lines)


def post(*lines: str | bytes, body: bytes = b"") -> bytes:
    return head("POST / HTTP/1.1", *lines) + body
