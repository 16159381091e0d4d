"""Plays HTTP/1 cases: bytes in, answers out, and what the origin got."""

from __future__ import annotations

import json
import re

from kit.wire import Answer, Closed, Connection

from . import h1_connections, h1_fields, h1_framing, h1_hosts, h1_targets
from .case import SMUGGLED, Answered, Broken, Case, Dropped, Refused, Request, get
from .recorder import Seen

CASES: list[Case] = [
    *h1_framing.CASES,
    *h1_targets.CASES,
    *h1_hosts.CASES,
    *h1_fields.CASES,
    *h1_connections.CASES,
]

#: The path of the request that shows that a connection goes on.
AFTER = "/after"
#: The path of requests that the origin may get or not.
MAYBE = "/maybe"


class Wrong(Exception):
    """What came is not what had to come."""


class RefusedByOrigin(Exception):
    """A real origin does not take what is canonical: its own affair, and nothing was misread."""


def play(case: Case, port: int, *, strict: bool) -> list[Request]:
    """Sends the case and reads all answers. Gives the requests that the origin must have got.

    `strict`: the origin is the recorder, which takes all that is canonical.
    """
    due: list[Request] = []
    outcomes = list(case.expect)
    refused = any(isinstance(outcome, (Refused, Broken, Dropped)) for outcome in outcomes)
    with Connection(port) as client, _Drained(client):
        pieces = list(case.pieces())
        if refused and case.smuggles:
            pieces[-1] += SMUGGLED
        for piece in pieces:
            client.send(piece)
            if case.half_closed:
                client.end()
            # One answer is due for each piece but the last one, which has all the rest.
            now, outcomes = (outcomes[:1], outcomes[1:]) if piece is not pieces[-1] else (outcomes, [])
            for outcome in now:
                due += _one(client, outcome, strict)
        if refused or case.closes:
            _ends(client)
        elif not any(request.status == 101 for request in due):
            client.send(get(target=AFTER))
            due += _one(client, Request(target=AFTER), strict)
        else:
            client.send(b"ping")
            if client._exactly(4) != b"ping":
                raise Wrong("the tunnel does not echo")
    return due


class _Drained:
    """Reads a connection to its end where a case went wrong, so that what is under way does not reach the next one."""

    def __init__(self, client: Connection) -> None:
        self.client = client

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self.client.socket.settimeout(0.5)
            try:
                self.client.rest()
            except TimeoutError:
                pass


def _one(client: Connection, outcome: object, strict: bool) -> list[Request]:
    try:
        return _answer(client, outcome, strict)
    except TimeoutError:
        raise Wrong(f"no answer where {outcome} was due") from None


def _answer(client: Connection, outcome: object, strict: bool) -> list[Request]:
    if isinstance(outcome, (Broken, Dropped)):
        try:
            answer = client.answer()
        except Closed:
            return []
        statuses = outcome.status if isinstance(outcome, Broken) else (400, 431, 505)
        if answer.status not in statuses:
            raise Wrong(f"answered {_told(answer)}, not {statuses} or the end")
        return []
    method = outcome.method if isinstance(outcome, Request) else "GET"
    try:
        answer = client.answer(method)
    except Closed as closed:
        raise Wrong(f"closed without the answer, {outcome} was due ({closed})") from None
    if isinstance(outcome, Request):
        if answer.status == outcome.status:
            hints = [103] if outcome.target == "/hints" and not outcome.is_http10 else []
            if answer.informational not in (hints, [100] if outcome.body else hints):
                raise Wrong(f"informational answers {answer.informational}, not {hints}")
            return [] if outcome.status in (413,) else [outcome]
        if not strict and answer.status >= 400 and _code(answer) is None:
            raise RefusedByOrigin(str(answer.status))
        raise Wrong(f"answered {_told(answer)}, not {outcome.status}")
    if isinstance(outcome, Refused):
        if answer.status not in outcome.status:
            raise Wrong(f"answered {_told(answer)}, not {outcome.status}")
        if outcome.code and _code(answer) != outcome.code:
            raise Wrong(f"the code is {_code(answer)}, not {outcome.code}")
    if isinstance(outcome, Answered) and (answer.status, _code(answer)) != (outcome.status, outcome.code):
        raise Wrong(f"answered {_told(answer)}, not {outcome.status} {outcome.code}")
    return []


def _told(answer: Answer) -> str:
    return f"{answer.status} {_code(answer) or ''}".strip()


def _code(answer: Answer) -> str | None:
    """The stable code of an answer that ingress gave itself."""
    try:
        return json.loads(answer.body)["error"]
    except (ValueError, KeyError, TypeError):
        return None


def _ends(client: Connection) -> None:
    client.end()
    try:
        rest = client.rest()
    except TimeoutError:
        raise Wrong("the connection goes on") from None
    if rest:
        raise Wrong(f"more comes before the end: {rest[:300]!r}")


#: What frames a message: the recorder judges it.
FRAMING = {"content-length", "transfer-encoding"}
TRACE = re.compile("00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def compare(seen: list[Seen], due: list[Request], *, any_order: bool, scheme: str = "http") -> None:
    """Raises [`Wrong`] where the origin got something else than was due.

    `any_order`: requests were under way at once.
    """
    seen = [one for one in seen if one.target != MAYBE]
    for one in seen:
        if one.fault:
            raise Wrong(f"the origin got what is not canonical: {one.fault}: {one.raw[:300]!r}")
    if any_order:
        seen, due = sorted(seen, key=lambda one: one.target), sorted(due, key=lambda request: request.target)
    got = [(one.method, one.target) for one in seen]
    wanted = [(request.method, request.target) for request in due]
    if got != wanted:
        raise Wrong(f"the origin got {got}, not {wanted}")
    for one, request in zip(seen, due):
        _compare_one(one, request, scheme)


def _compare_one(seen: Seen, request: Request, scheme: str) -> None:
    ours = {
        "host": request.host,
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-host": request.host,
        "x-forwarded-proto": scheme,
        "forwarded": f'for=127.0.0.1;host="{request.host}";proto={scheme}',
    }
    for name, value in ours.items():
        if seen.all(name) != [value]:
            raise Wrong(f"{name} is {seen.all(name)} at the origin, not {value!r}")
    for name, pattern in {"x-request-id": re.compile("[0-9a-f]{32}"), "traceparent": TRACE}.items():
        if len(seen.all(name)) != 1 or not pattern.fullmatch(seen.all(name)[0]):
            raise Wrong(f"{name} is {seen.all(name)} at the origin")
    own = {*ours, "x-request-id", "traceparent", *FRAMING}
    # Names in order; values of one name in the order in which they came.
    if ("upgrade", "websocket") in request.fields and "sec-websocket-key" not in dict(request.fields):
        # RFC 8441 has no key: HTTP/1 gets one that ingress makes.
        own.add("sec-websocket-key")
        if len(seen.all("sec-websocket-key")) != 1 or len(seen.all("sec-websocket-key")[0]) != 24:
            raise Wrong(f"sec-websocket-key is {seen.all('sec-websocket-key')} at the origin")
    fields = sorted((field for field in seen.fields if field[0] not in own), key=lambda field: field[0])
    wanted = sorted(request.fields, key=lambda field: field[0])
    if fields != wanted:
        raise Wrong(f"the fields at the origin are {_short(fields)}, not {_short(wanted)}")
    if seen.body != request.body:
        raise Wrong(f"the body at the origin is {seen.body[:200]!r}, not {request.body[:200]!r}")
    if seen.trailers != list(request.trailers):
        raise Wrong(f"the trailers at the origin are {seen.trailers}, not {list(request.trailers)}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 400 else f"{text[:400]}…"
