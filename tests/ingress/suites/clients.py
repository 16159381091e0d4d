"""curl and Node's clients: what each gets must be the same through ingress as from the origin itself."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import subprocess
import threading
from pathlib import Path

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from kit import certificates
from kit.programs import ProgramError, find
from kit.site import Site
from kit.stand import Route, Stand
from matrix.recorder import Recorder

from .common import Comparison, arguments, skip

HERE = Path(__file__).parent


class Echo:
    """A WebSocket server (of Python's websockets) on `port`: `/close` closes with 4000 after a message, `/refused` is 403."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(self._start())
        self.port = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    async def _start(self):
        def refuse(connection: ServerConnection, request):
            return connection.respond(403, "no\n") if request.path == "/refused" else None

        async def echo(connection: ServerConnection) -> None:
            with contextlib.suppress(ConnectionClosed):
                async for message in connection:
                    if connection.request.path == "/close":
                        await connection.close(4000, "enough")
                    else:
                        await connection.send(message)

        return await serve(echo, "127.0.0.1", 0, process_request=refuse, subprotocols=["superchat"], max_size=1 << 24)

    def stop(self) -> None:
        async def end() -> None:
            self._server.close()
            await self._server.wait_closed()

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


#: The fields of an answer that a proxy has no business with.
KEPT = {"accept-ranges", "content-range", "content-length", "content-encoding", "etag", "last-modified", "cache-control", "location", "set-cookie", "vary", "content-type", "expires", "pragma"}


def curl(program: str, port: int, host: str, words: list[str], paths: list[str], scheme: str = "http") -> object:
    """What it got of all the paths, on one connection where it can."""
    command = [program, "-s", "--max-time", "30", "--connect-to", f"::127.0.0.1:{port}", "-w", "%{stderr}%{exitcode} %{http_code} %{size_download} %{num_redirects} %{num_connects}\\n%{header_json}\\n"]
    command += [*words, *(f"{scheme}://{host}:{port}{path}" for path in paths)]
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
    said = done.stderr.decode("utf-8", "replace")
    heads = []
    for line in said.splitlines():
        if line[:1].isdigit():
            heads.append(line.strip())
    fields = []
    for part in said.split("\n{")[1:]:
        try:
            found = json.loads("{" + part[: part.rindex("}") + 1])
        except ValueError:
            continue
        for name, values in sorted(found.items()):
            if name in KEPT:
                fields.append(f"{name}: {', '.join(values)}".replace(f":{port}", ":<port>"))
    if "-I" in words:
        # It prints the head: hop-by-hop fields and capitals are not the same.
        return {"exit": done.returncode, "seen": [line.split(" ")[:2] for line in heads], "fields": fields}
    return {"exit": done.returncode, "seen": heads, "fields": fields, "body": hashlib.sha256(done.stdout).hexdigest()[:16], "length": len(done.stdout)}


SITE, TOLD = "site.localhost", "echo.localhost"


def cases(file: Path) -> list[tuple[str, list[str], list[str], str]]:
    """(name, words, paths, host)."""
    large = ["-T", str(file)]
    return [
        ("get", [], ["/"], SITE),
        ("head", ["-I"], ["/a.css"], SITE),
        ("range first", ["-r", "0-9"], ["/large.bin"], SITE),
        ("range last", ["-r", "-5"], ["/large.bin"], SITE),
        ("range from", ["-r", "4194300-"], ["/large.bin"], SITE),
        ("range impossible", ["-r", "9999999-"], ["/large.bin"], SITE),
        ("compressed", ["--compressed"], ["/index.html", "/a.json"], SITE),
        ("gzip as it is", ["-H", "Accept-Encoding: gzip"], ["/a.css"], SITE),
        ("if-none-match", ["-H", "If-None-Match: *"], ["/a.css"], SITE),
        ("if-modified-since", ["-z", "2099-01-01"], ["/a.css"], SITE),
        ("404", [], ["/missing"], SITE),
        ("403", [], ["/forbidden"], SITE),
        ("418", [], ["/teapot"], SITE),
        ("204", [], ["/empty"], SITE),
        ("cookies", ["-c", "-"], ["/cookie"], SITE),
        ("redirect", [], ["/found"], SITE),
        ("redirect followed", ["-L"], ["/found"], SITE),
        ("4 MiB down", [], ["/large.bin"], SITE),
        ("five on one connection", [], ["/", "/a.css", "/a.json", "/small.bin", "/missing"], SITE),
        ("post", ["-d", "a=b"], ["/echo"], TOLD),
        ("put", ["-X", "PUT", "-d", "a=b"], ["/echo?a=b"], TOLD),
        ("upload by length", large, ["/echo"], TOLD),
        ("upload, expect", [*large, "-H", "Expect: 100-continue"], ["/echo"], TOLD),
        ("upload, no expect", [*large, "-H", "Expect:"], ["/echo"], TOLD),
        ("upload chunked", ["-X", "POST", "-H", "Transfer-Encoding: chunked", "--data-binary", f"@{file}"], ["/echo"], TOLD),
        ("delete", ["-X", "DELETE"], ["/echo"], TOLD),
        ("options", ["-X", "OPTIONS"], ["/echo"], TOLD),
        ("odd method", ["-X", "PROPFIND"], ["/echo"], TOLD),
        ("early hints", [], ["/hints"], TOLD),
        ("path as it is", ["--path-as-is"], ["/echo/../%2e/a%2Fb"], TOLD),
        ("host with dot", ["-H", f"Host: {TOLD}."], ["/echo"], TOLD),
    ]


def main() -> None:
    given = arguments(__doc__)
    program = find("curl")
    if not program:
        skip("curl is not installed: type `sudo apt-get install -y curl`")
    plain = "nginx compresses nothing for HTTP/1.0; ingress asks it by HTTP/1.1"
    explained = {f"curl --http1.0 {name}": plain for name in ("compressed", "gzip as it is")}
    report = Comparison("clients", given.work, explained)
    leaf = certificates.make(given.work / "certificates", "*.localhost", "localhost", SITE, TOLD, "ws.localhost")
    try:
        site = Site(given.work / "site", leaf)
    except ProgramError as why:
        skip(str(why))
    recorder, echo = Recorder(any_case=True), Echo()
    routes = [Route(site.port, "site"), Route(recorder.port, "echo"), Route(echo.port, "ws")]
    file = given.work / "upload.bin"
    file.write_bytes(bytes(range(256)) * 8192)
    try:
        with Stand(given.stand, given.work, routes, certificate=leaf if given.tls else None) as stand:
            _curl(report, program, stand, site, recorder, file, leaf, given.only)
            _node(report, stand, site, recorder, echo, given.only)
    finally:
        echo.stop()
        recorder.stop()
        site.stop()
    report.end(only_differences=True)


def _curl(report: Comparison, program: str, stand: Stand, site: Site, recorder: Recorder, file: Path, leaf: certificates.Leaf, only: str) -> None:
    trust = ["--cacert", str(leaf.authority)]
    ways = {
        "--http1.0": (stand.port, site.port, "http", ["--http1.0"]),
        "--http1.1": (stand.port, site.port, "http", ["--http1.1"]),
        "--http2": (stand.port, site.port, "http", ["--http2"]),
        "--http2-prior-knowledge": (stand.port, site.h2_port, "http", ["--http2-prior-knowledge"]),
        "TLS --http1.1": (stand.tls_port, site.tls_port, "https", ["--http1.1", *trust]),
        "TLS --http2": (stand.tls_port, site.tls_port, "https", ["--http2", *trust]),
        "TLS 1.2": (stand.tls_port, site.tls_port, "https", ["--http2", "--tls-max", "1.2", *trust]),
        "TLS 1.3": (stand.tls_port, site.tls_port, "https", ["--http2", "--tlsv1.3", *trust]),
    }
    for way, (to, direct, scheme, words) in ways.items():
        for name, more, paths, host in cases(file):
            what = f"curl {way} {name}"
            if only not in what or not to:
                continue
            if way == "--http1.0" and "chunked" in name:
                continue
            if host == SITE:
                expected = curl(program, direct, host, [*words, *more], paths, scheme)
            else:
                # The recorder speaks HTTP/1 only: what it got must be the same whatever the client spoke.
                expected = curl(program, recorder.port, host, ["--http1.1", *more], paths)
            got = curl(program, to, host, [*words, *more], paths, scheme)
            _add(report, what, expected, got)


def _add(report: Comparison, what: str, expected: object, got: object) -> None:
    if isinstance(expected, dict) and isinstance(got, dict):
        differ = sorted({key for key in {**expected, **got} if expected.get(key) != got.get(key)})
        if differ:
            expected, got = ({key: side.get(key) for key in differ} for side in (expected, got))
    report.add(what, json.dumps(expected), json.dumps(got))


def _node(report: Comparison, stand: Stand, site: Site, recorder: Recorder, echo: Echo, only: str) -> None:
    node = find("node")
    if not node:
        print("Node.js is not installed: its clients are left out")
        return

    def run(*words: object) -> dict[str, object]:
        command = [node, "--no-warnings", "--experimental-websocket", str(HERE / "clients.mjs"), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
        if done.returncode:
            raise ProgramError(f"clients.mjs failed: {done.stderr}")
        return {line["name"]: line["result"] for line in map(json.loads, done.stdout.splitlines())}

    direct = run(recorder.port, 0, echo.port, TOLD, "ws.localhost")
    through = run(stand.port, stand.port, stand.port, TOLD, "ws.localhost")
    for name, got in through.items():
        if only not in f"node {name}":
            continue
        # HTTP/2 has no origin of its own here: the same request by HTTP/1 says what is right.
        same = {"http2 get": None, "http2 large": "http large", "http2 early hints": "http early hints"}.get(name, name)
        expected = HTTP2.get(name) if name in HTTP2 else direct.get(same or name)
        if name in ("http2 large", "http2 early hints"):
            expected, got = ({key: side.get(key) for key in ("status", "body", "informational")} if isinstance(side, dict) else side for side in (expected, got))
        if name in ("http2 post", "http2 put 4 MiB", "http2 get"):
            got = {"status": got["status"], **{key: value for key, value in json.loads(got["body"]).items() if key in ("method", "length", "target", "fields")}} if isinstance(got, dict) and "status" in got else got
        _add(report, f"node {name}", expected, got)


HTTP2: dict[str, object] = {
    "http2 get": {"status": 200, "method": "GET", "target": "/echo?a=b", "fields": {"cookie": ["a=b; c=d"], "x-test": ["1"]}, "length": 0},
    "http2 post": {"status": 200, "method": "POST", "target": "/echo", "fields": {}, "length": 5},
    "http2 put 4 MiB": {"status": 200, "method": "PUT", "target": "/echo", "fields": {}, "length": 4 << 20},
    "http2 100 at once": [200] * 100,
    "http2 cancel": 8,
    "http2 after cancel": 200,
    "http2 ping": "pong",
}


if __name__ == "__main__":
    main()
