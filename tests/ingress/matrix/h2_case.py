"""A case of HTTP/2: bytes behind the preface, and what has to come of them on which stream."""

from __future__ import annotations

from dataclasses import dataclass, field

from kit.frames import (
    CANCEL,
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    HEADERS,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    Field,
    block,
    data,
    frame,
    headers,
)
from kit.stand import HOST

from .case import Answered, Request


@dataclass(frozen=True)
class Malformed:
    """RST_STREAM with one of the codes, or (RFC 9113, section 8.1.1) a 4xx before it; then the connection goes on. Or
    GOAWAY with one of the codes: an endpoint may take it for a fault of the connection (section 5.4.2). The origin gets no
    whole request."""

    codes: tuple[int, ...] = (PROTOCOL_ERROR,)
    statuses: tuple[int, ...] = (400,)


@dataclass(frozen=True)
class GoAway:
    """A fault of the connection: GOAWAY with one of the codes, and its end. The origin gets nothing.

    `silent`: it may also end without GOAWAY (RFC 9113, section 3.4, before the preface is through).
    """

    codes: tuple[int, ...] = (PROTOCOL_ERROR,)
    silent: bool = False


@dataclass(frozen=True)
class Contained:
    """A flood: the connection goes on, or ends by ENHANCE_YOUR_CALM (or another of the codes). Requests that it asks
    for are for `/maybe`: the origin may get them or not."""

    codes: tuple[int, ...] = (ENHANCE_YOUR_CALM, PROTOCOL_ERROR)


@dataclass(frozen=True)
class Passed:
    """The connection goes on; nothing was asked for."""


Outcome = Request | Answered | Malformed | GoAway | Contained | Passed


@dataclass(frozen=True)
class Case:
    """`send` goes out in pieces, each after the end of the stream 1, 3, … that the one before asked on."""

    name: str
    send: bytes | tuple[bytes, ...]
    #: Of stream 1, 3, 5, … in this order.
    expect: tuple[Outcome, ...]
    why: str
    #: Whether preface and an empty SETTINGS come first.
    greet: bool = True
    recorder_only: bool = False

    def pieces(self) -> tuple[bytes, ...]:
        return (self.send,) if isinstance(self.send, bytes) else self.send


@dataclass
class Table:
    """Cases of one subject."""

    cases: list[Case] = field(default_factory=list)

    def add(self, name: str, send: bytes | tuple[bytes, ...], *expect: Outcome, why: str, **rest: bool) -> None:
        self.cases.append(Case(name, send, expect, why, **rest))


PSEUDO = {":method": "GET", ":scheme": "http", ":authority": HOST, ":path": "/"}


def head(*fields: Field, **pseudo: str | None) -> list[Field]:
    """The four pseudo-header fields, with those given as `method=…` and so on in their place (None: left out)."""
    changed = {f":{name}": value for name, value in pseudo.items()}
    first = {**PSEUDO, **changed}
    return [(name, value) for name, value in first.items() if value is not None] + list(fields)


def get(*fields: Field, stream: int = 1, **pseudo: str | None) -> bytes:
    return headers(stream, *head(*fields, **pseudo))


def post(body: bytes, *fields: Field, stream: int = 1, **pseudo: str | None) -> bytes:
    pseudo = {"method": "POST", **pseudo}
    return headers(stream, *head(*fields, **pseudo), end=False) + data(stream, body)


#: By which codes a limit may be told where it is not an answer.
LIMIT = (PROTOCOL_ERROR, REFUSED_STREAM, ENHANCE_YOUR_CALM, CANCEL)


def in_frames(fields: list[Field], stream: int = 1) -> bytes:
    """A head over as many CONTINUATION frames as it needs."""
    whole = block(*fields)
    pieces = [whole[at : at + 16384] for at in range(0, len(whole), 16384)]
    last = len(pieces) - 1
    return b"".join(
        frame(CONTINUATION if at else HEADERS, (END_HEADERS if at == last else 0) | (0 if at else END_STREAM), stream, piece)
        for at, piece in enumerate(pieces)
    )
