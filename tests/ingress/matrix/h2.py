"""Plays HTTP/2 cases: frames in, frames out, and what the origin got."""

from __future__ import annotations

import json

from kit.frames import NO_ERROR, PING, Client, Stream, frame

from . import h2_frames, h2_heads
from .case import Answered, Request
from .h1 import AFTER, RefusedByOrigin, Wrong
from .h2_case import Case, Contained, GoAway, Malformed, Passed, get

CASES: list[Case] = [*h2_heads.CASES, *h2_frames.CASES]

#: The stream of the request that shows that a connection goes on: above all that cases use.
LAST = 100_001


def play(case: Case, port: int, *, strict: bool) -> list[Request]:
    """Sends the case and reads until each stream's fate is known. Gives the requests that the origin must have got."""
    due: list[Request] = []
    with Client(port, greet=case.greet) as client:
        try:
            for piece in case.pieces():
                client.send(piece)
            for at, outcome in enumerate(case.expect):
                due += _one(client, client.stream(2 * at + 1), 2 * at + 1, outcome, strict)
            gone = client.goaway is not None and isinstance(case.expect[-1], Malformed)
            if not gone and not isinstance(case.expect[-1], (GoAway, Contained)):
                due += _goes_on(client, strict)
        except TimeoutError:
            raise Wrong(f"nothing comes any more where {case.expect} was due; so far {client.streams}") from None
    return due


def _goes_on(client: Client, strict: bool) -> list[Request]:
    client.send(get(stream=LAST, path=AFTER))
    after = client.until_done(LAST)
    if client.goaway not in (None, NO_ERROR) or after.status is None:
        raise Wrong(f"the connection does not go on: GOAWAY {client.goaway}, RST_STREAM {after.reset}")
    return _one(client, after, LAST, Request(target=AFTER), strict)


def _code(stream: Stream) -> str | None:
    try:
        return json.loads(stream.body)["error"]
    except (ValueError, KeyError, TypeError):
        return None


def _told(client: Client, stream: Stream) -> str:
    said = [f"{stream.status} {_code(stream) or ''}".strip()] if stream.status else []
    said += [f"RST_STREAM {stream.reset}"] if stream.reset is not None else []
    said += [f"GOAWAY {client.goaway}"] if client.goaway is not None else []
    return ", ".join(said) or ("the end" if client.closed else "nothing")


def _one(client: Client, stream: Stream, number: int, outcome: object, strict: bool) -> list[Request]:
    if isinstance(outcome, Passed):
        return []
    if isinstance(outcome, GoAway):
        client.until_closed()
        if client.goaway in outcome.codes or (outcome.silent and client.goaway is None):
            return []
        raise Wrong(f"{_told(client, stream)}, not GOAWAY {outcome.codes}")
    if isinstance(outcome, Contained):
        return _contained(client, stream, outcome)
    if isinstance(outcome, Request) and dict(outcome.fields).get("upgrade") == "websocket" and outcome.target == "/switch":
        return _tunnel(client, stream, outcome)
    client.until_done(number)
    if isinstance(outcome, Malformed):
        if stream.reset in outcome.codes or stream.status in outcome.statuses or client.goaway in outcome.codes:
            return []
        raise Wrong(f"{_told(client, stream)}, not RST_STREAM or GOAWAY {outcome.codes} or {outcome.statuses}")
    if isinstance(outcome, Answered):
        if (stream.status, _code(stream)) != (outcome.status, outcome.code):
            raise Wrong(f"{_told(client, stream)}, not {outcome.status} {outcome.code}")
        return []
    assert isinstance(outcome, Request)
    if stream.status == outcome.status:
        if outcome.target == "/hints" and stream.informational != [103]:
            raise Wrong(f"informational answers {stream.informational}, not 103")
        return [] if outcome.status == 413 else [outcome]
    if not strict and (stream.status or 0) >= 400 and _code(stream) is None:
        raise RefusedByOrigin(str(stream.status))
    raise Wrong(f"{_told(client, stream)}, not {outcome.status}")


def _tunnel(client: Client, stream: Stream, outcome: Request) -> list[Request]:
    while stream.body != b"ping" and not (stream.ended or stream.reset is not None or client.closed):
        client.read()
    if (stream.status, stream.body) != (200, b"ping"):
        raise Wrong(f"{_told(client, stream)} and {stream.body!r}, not 200 and the echo")
    return [outcome]


def _contained(client: Client, stream: Stream, outcome: Contained) -> list[Request]:
    """The connection still answers a PING, or has ended with one of the codes."""
    before = client.pings
    client.send(frame(PING, 0, 0, b"the-last"))
    while client.pings == before and not client.closed:
        client.read()
    if client.closed and client.goaway not in (None, NO_ERROR, *outcome.codes):
        raise Wrong(f"{_told(client, stream)}, not one of {outcome.codes} or an answer")
    return []
