"""The origins: the recorder, and five servers that others wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Callable

from kit.programs import Program, ProgramError, find, free_port
from kit.wire import Connection

from .case import Request
from .recorder import Recorder, Seen

HERE = Path(__file__).parents[1] / "origins"


class Missing(Exception):
    """A server that is not on this machine, with what to type."""


class Origin:
    """A server behind ingress that tells what it got."""

    name = ""
    port = 0

    def take(self, marker: str) -> list[Seen]:
        """What it got since the last time: all before a request of our own, which goes straight to it."""
        with Connection(self.port) as direct:
            direct.send(f"GET {marker} HTTP/1.1\r\nhost: marker\r\nconnection: close\r\n\r\n".encode())
            direct.answer()
        return self._before(marker)

    def _before(self, marker: str) -> list[Seen]:
        raise NotImplementedError

    def sees(self, request: Request) -> Request | None:
        """The request as this server tells of it, where it can't tell all; None where it says nothing."""
        return request

    def stop(self) -> None:
        raise NotImplementedError


class Recording(Origin):
    """The recorder itself: all of a request, and whether it is canonical."""

    name = "recorder"

    def __init__(self, *, any_case: bool = False) -> None:
        self._recorder = Recorder(any_case=any_case)
        self.port = self._recorder.port

    def _before(self, marker: str) -> list[Seen]:
        recorder = self._recorder
        with recorder.arrived:
            at = lambda: next((at for at, seen in enumerate(recorder.seen) if seen.target == marker), None)
            if not recorder.arrived.wait_for(lambda: at() is not None, 30):
                raise ProgramError("a request to the recorder was lost")
            index = at()
            before, recorder.seen = recorder.seen[:index], recorder.seen[index + 1 :]
        return before

    def stop(self) -> None:
        self._recorder.stop()


class Telling(Origin):
    """A program that prints a JSON line for each request."""

    def __init__(self, name: str, command: list[str], work: Path, sees: Callable[[Request], Request | None]) -> None:
        self.name, self._sees = name, sees
        self._program = Program(name, command, work / f"origin-{name}.log")
        try:
            line, _ = self._program.line()
            self.port = json.loads(line)["ready"]
        except BaseException:
            self._program.stop()
            raise

    def _before(self, marker: str) -> list[Seen]:
        _, lines = self._program.line(lambda line: json.loads(line)["target"] == marker)
        return [
            Seen(
                told["method"],
                told["target"],
                [(name, value) for name, value in told["fields"]],
                bytes.fromhex(told["body"]),
                [(name, value) for name, value in told["trailers"]],
            )
            for told in map(json.loads, lines)
        ]

    def sees(self, request: Request) -> Request | None:
        return self._sees(request)

    def stop(self) -> None:
        self._program.stop()


class Nginx(Recording):
    """nginx in front of a recorder of its own."""

    name = "nginx"

    def __init__(self, work: Path) -> None:
        nginx = find("nginx")
        if not nginx:
            raise Missing("type `sudo apt-get install -y nginx-light`")
        super().__init__(any_case=True)
        self._work = work
        inner, self.port = self.port, free_port()
        text = (HERE / "nginx.conf").read_text()
        for name, value in {"work": work, "port": self.port, "recorder": inner}.items():
            text = text.replace(f"{{{name}}}", str(value))
        (work / "nginx.conf").write_text(text)
        # It goes to the background when it listens.
        self._command = [nginx, "-e", str(work / "nginx.log"), "-p", str(work), "-c", str(work / "nginx.conf")]
        done = subprocess.run(self._command, capture_output=True, text=True)
        if done.returncode:
            super().stop()
            raise ProgramError(f"nginx does not start: {done.stderr}")

    def sees(self, request: Request) -> Request:
        # It reads trailers and gives none on; Connection and Expect are its own.
        own = ("connection", "expect")
        return replace(request, trailers=(), fields=tuple(field for field in request.fields if field[0] not in own))

    def stop(self) -> None:
        subprocess.run([*self._command, "-s", "stop"], capture_output=True)
        super().stop()


def _go(work: Path) -> str:
    go = find("go", "/usr/local/go/bin/go")
    if not go:
        raise Missing("type `sudo apt-get install -y golang-go`")
    binary = work / "origin-go"
    env = {"GOCACHE": str(work / "go-cache"), "GO111MODULE": "off", "GOFLAGS": "", "CGO_ENABLED": "0"}
    done = subprocess.run(
        [go, "build", "-o", str(binary), str(HERE / "go" / "main.go")],
        capture_output=True, text=True, env={**os.environ, **env},
    )  # fmt: skip
    if done.returncode:
        raise ProgramError(f"go build failed: {done.stderr}")
    return str(binary)


def _node(work: Path) -> str:
    node = find("node")
    if not node:
        raise Missing("type `sudo apt-get install -y nodejs`")
    return node


def _by_asgi(request: Request) -> Request:
    # ASGI has no word for `?` with nothing behind it, nor for trailers.
    path, _, query = request.target.partition("?")
    return replace(request, target=f"{path}?{query}" if query else path, trailers=())


def _by_go(request: Request) -> Request | None:
    # net/http answers `OPTIONS *` itself, and takes Trailer from the fields.
    if request.target == "*":
        return None
    return replace(request, fields=tuple(field for field in request.fields if field[0] != "trailer"))


def start_all(work: Path, hyper: Path, chosen: list[str]) -> tuple[list[Origin], dict[str, str]]:
    """Those of the origins that the machine has, the recorder first; and why the others are left out."""
    same = lambda request: request
    makers: dict[str, Callable[[], Origin]] = {
        "recorder": Recording,
        "node": lambda: Telling("node", [_node(work), str(HERE / "node.mjs")], work, same),
        "python": lambda: Telling("python", [sys.executable, str(HERE / "python.py")], work, _by_asgi),
        "nginx": lambda: Nginx(work),
        "hyper": lambda: Telling("hyper", [str(hyper)], work, same),
        "go": lambda: Telling("go", [_go(work)], work, _by_go),
    }
    running: list[Origin] = []
    missing: dict[str, str] = {}
    for name in chosen or makers:
        try:
            running.append(makers[name]())
        except Missing as why:
            missing[name] = str(why)
        except BaseException:
            stop_all(running)
            raise
    return running, missing


def stop_all(origins: list[Origin]) -> None:
    for origin in origins:
        origin.stop()
