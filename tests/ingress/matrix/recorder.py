"""The byte-recording origin: keeps what it got, judges whether it is canonical, and plays some parts.

Canonical is narrower than valid: one form for each request, in which no two readers can differ.
Parts are chosen by the path: `/early` answers 413 before it reads the body, `/hints` sends a 103 first,
`/switch` answers 101 and then echoes, `/large` answers 1 MiB,
`/echo` answers what it got as JSON, anything else answers 200 `ok`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([^\x00-\x20\x7f-\xff#]+) HTTP/1\.1")
#: No white space around the value, no control but tab inside; names in lower case.
FIELD_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9a-z]+): ?((?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?)")
LENGTH = re.compile(rb"0|[1-9][0-9]*")
CHUNK = re.compile(rb"0|[1-9A-Fa-f][0-9A-Fa-f]*")


class NotCanonical(Exception):
    """What came can be read in more than one way."""


@dataclass
class Seen:
    """A request as an origin got it. Names in lower case, text as latin-1."""

    method: str
    target: str
    fields: list[tuple[str, str]]
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    #: Why it is not canonical.
    fault: str | None = None
    raw: bytes = b""

    def all(self, name: str) -> list[str]:
        return [value for known, value in self.fields if known == name]


def _read_fields(lines: list[bytes], any_case: bool) -> list[tuple[str, str]]:
    fields = []
    for line in lines:
        if any_case:
            name, colon, value = line.partition(b":")
            line = name.lower() + colon + value
        if not (match := FIELD_LINE.fullmatch(line)):
            raise NotCanonical(f"the field line {line[:100]!r}")
        fields.append((match[1].decode("latin-1"), match[2].decode("latin-1")))
    return fields


def told(seen: Seen) -> bytes:
    """What is the same of a request whichever protocol and framing it came in."""
    kept = ("accept", "content-type", "cookie", "range", "x-test")
    fields = {name: seen.all(name) for name in kept if seen.all(name)}
    digest = hashlib.sha256(seen.body).hexdigest()
    told = {"method": seen.method, "target": seen.target, "fields": fields, "length": len(seen.body), "sha256": digest, "trailers": seen.trailers}
    return json.dumps(told).encode()


class Recorder:
    """Listens on `port`. `seen` grows by one for each whole request, in order of their ends.

    `any_case`: names of fields may be written in capitals, as servers do that keep them so.
    """

    def __init__(self, *, any_case: bool = False) -> None:
        self._any_case = any_case
        self.seen: list[Seen] = []
        self.arrived = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        async def end() -> None:
            self._server.close()
            mine = asyncio.current_task()
            others = [task for task in asyncio.all_tasks() if task is not mine]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _keep(self, seen: Seen) -> None:
        with self.arrived:
            self.seen.append(seen)
            self.arrived.notify_all()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._request(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.LimitOverrunError):
            pass  # It broke off: no request.
        except asyncio.CancelledError:
            pass  # The end of the run.
        finally:
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        raw = await reader.readuntil(b"\r\n\r\n")
        lines = raw[:-4].split(b"\r\n")
        seen = Seen("?", "?", [], raw=raw)
        try:
            if not (line := REQUEST_LINE.fullmatch(lines[0])):
                raise NotCanonical(f"the request line {lines[0][:200]!r}")
            seen.method, seen.target = line[1].decode(), line[2].decode("latin-1")
            seen.fields = _read_fields(lines[1:], self._any_case)
            self._check_host(seen)
            if seen.target == "/early":
                writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
                await writer.drain()
                return False
            if "100-continue" in (value.lower() for value in seen.all("expect")):
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await self._body(seen, reader)
        except NotCanonical as fault:
            seen.fault = str(fault)
            self._keep(seen)
            writer.write(b"HTTP/1.1 500 Not Canonical\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
            return False
        self._keep(seen)
        if seen.target == "/switch":
            await self._switch(seen, reader, writer)
            return False
        if seen.target == "/hints":
            writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")
        body = b"x" * (1 << 20) if seen.target == "/large" else told(seen) if seen.target.startswith("/echo") else b"ok"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + (b"" if seen.method == "HEAD" else body))
        await writer.drain()
        return True

    @staticmethod
    def _check_host(seen: Seen) -> None:
        if len(seen.all("host")) != 1:
            raise NotCanonical(f"{len(seen.all('host'))} Host fields")

    async def _body(self, seen: Seen, reader: asyncio.StreamReader) -> None:
        lengths, codings = seen.all("content-length"), seen.all("transfer-encoding")
        if len(lengths) + len(codings) > 1:
            raise NotCanonical(f"framed more than once: lengths {lengths}, codings {codings}")
        if lengths:
            if not LENGTH.fullmatch(lengths[0].encode("latin-1")):
                raise NotCanonical(f"the length {lengths[0]!r}")
            seen.body = await reader.readexactly(int(lengths[0]))
        elif codings:
            if codings[0] != "chunked":
                raise NotCanonical(f"the coding {codings[0]!r}")
            while True:
                size = (await reader.readuntil(b"\r\n"))[:-2]
                if not CHUNK.fullmatch(size):
                    raise NotCanonical(f"the chunk size {size[:100]!r}")
                if size == b"0":
                    break
                seen.body += await reader.readexactly(int(size, 16))
                if await reader.readexactly(2) != b"\r\n":
                    raise NotCanonical("a chunk that does not end where it should")
            trailers = []
            while line := (await reader.readuntil(b"\r\n"))[:-2]:
                trailers.append(line)
            seen.trailers = _read_fields(trailers, self._any_case)

    @staticmethod
    async def _switch(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        protocol = seen.all("upgrade")[0] if seen.all("upgrade") else "none"
        key = seen.all("sec-websocket-key")
        accept = ""
        if key:
            digest = hashlib.sha1(key[0].encode("latin-1") + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
            accept = f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}\r\n"
        switch = f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n{accept}\r\n"
        writer.write(switch.encode("latin-1"))
        await writer.drain()
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
