"""Other programs: started with their output read, stopped at the end whatever happens.

A program is ready when it has printed the line that says so; nothing here sleeps to wait for one.
"""

from __future__ import annotations

import collections
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Callable

#: Seconds within which a program must be ready or gone. Only a fault takes that long.
PATIENCE = 30


class ProgramError(Exception):
    """A program did not start, or died."""


def find(*names: str) -> str | None:
    """The first of the programs that is installed. Debian keeps servers in folders that users' PATH lacks."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    return next((found for name in names if (found := shutil.which(name, path=path))), None)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free now, for programs that can't take port 0 and say which it is."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Program:
    """A running program. Its lines on standard output are kept until somebody takes them."""

    def __init__(self, name: str, command: list[str], log: Path, *, env: dict[str, str] | None = None) -> None:
        self.name, self.log = name, log
        self._lines: collections.deque[str] = collections.deque()
        self._arrived = threading.Condition()
        self._ended = False
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **(env or {})},
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            with self._arrived:
                self._lines.append(line.decode("utf-8", "replace").rstrip("\n"))
                self._arrived.notify_all()
        with self._arrived:
            self._ended = True
            self._arrived.notify_all()

    def line(self, wanted: Callable[[str], bool] = lambda _: True) -> tuple[str, list[str]]:
        """Waits for a line; gives it and those that came before it, and forgets all of them."""
        before: list[str] = []
        deadline = time.monotonic() + PATIENCE
        with self._arrived:
            while True:
                while self._lines:
                    line = self._lines.popleft()
                    if wanted(line):
                        return line, before
                    before.append(line)
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    raise ProgramError(f"{self.name} {self._fate()}; it said {before[-3:]}, its log is {self.log}")
                self._arrived.wait(left)

    def _fate(self) -> str:
        code = self.process.poll()
        return "says nothing" if code is None else f"ended with code {code}"

    def memory(self) -> int:
        """Resident memory in KiB (Linux: `VmRSS` of /proc/<pid>/status)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1])

    def is_running(self) -> bool:
        return self.process.poll() is None

    def hang_up(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join()
        self.process.stdout.close()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
