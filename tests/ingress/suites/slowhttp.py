"""slowhttptest's three attacks (slowloris, slow body, slow read), while another client is served as if alone.

What has to hold: the healthy client gets every answer; memory stays within 256 KiB for each attacking
connection; when the attack has lasted several times the time-outs, ingress has let go of all its connections.
"""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path

from kit.programs import find
from kit.stand import HOST, Route, Stand
from kit.wire import Connection
from matrix.recorder import Recorder

from .common import Comparison, arguments, skip

CONNECTIONS = 400
#: Milliseconds: as short as an attack that lasts half a minute needs to be cut within it.
LIMITS = {"headerTimeout": 5_000, "bodyTimeout": 5_000, "writeTimeout": 5_000, "keepAliveTimeout": 10_000}
SECONDS = 25
#: Of memory for each attacking connection.
KIB = 256
#: -H slowloris, -B slow body, -X slow read.
ATTACKS = {
    "slowloris": ["-H", "-i", "2", "-x", "24"],
    "slow body": ["-B", "-i", "2", "-s", "8192", "-x", "10"],
    "slow read": ["-X", "-w", "1", "-y", "8", "-n", "2", "-z", "8", "-k", "3"],
}
GET = f"GET /{'{}'} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"


class Healthy(threading.Thread):
    """Asks once in a while until told to stop, each time on a new connection."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port, self.ended = port, threading.Event()
        self.asked = self.failed = 0
        self.longest = 0.0

    def run(self) -> None:
        while not self.ended.wait(0.05):
            begun = time.monotonic()
            self.asked += 1
            try:
                with Connection(self.port) as client:
                    client.send(GET.format("healthy").encode())
                    self.failed += client.answer().status != 200
            except (OSError, ValueError, Exception):
                self.failed += 1
            self.longest = max(self.longest, time.monotonic() - begun)


def attack(tool: str, words: list[str], port: int, prefix: Path) -> bool:
    """Runs one attack to its end. Whether that came early, since the server had closed all connections."""
    # As a proxy, so that the host needs no entry in anybody's DNS: the absolute form means the same.
    url = f"http://{HOST}:{port}/large"
    command = [tool, *words, "-d", f"127.0.0.1:{port}", "-c", str(CONNECTIONS), "-r", "200", "-l", str(SECONDS), "-p", "2", "-g", "-o", str(prefix), "-u", url]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS + 60)
    return "No open connections left" in done.stdout


def established(port: int) -> int:
    """Connections to the port that neither side has closed (state 01 in /proc/net/tcp, counted at the server's end)."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(words[1].endswith(f":{port:04X}") and words[3] == "01" for words in map(str.split, lines))


def main() -> None:
    given = arguments(__doc__)
    tool = find("slowhttptest")
    if not tool:
        skip("slowhttptest is not installed: type `sudo apt-get install -y slowhttptest`")
    report = Comparison("slowhttp", given.work)
    recorder = Recorder()
    try:
        for name, words in ATTACKS.items():
            if given.only not in name:
                continue
            with Stand(given.stand, given.work, [Route(recorder.port)], limits=LIMITS, name=f"stand-{name.replace(' ', '-')}") as stand:
                _under(report, name, lambda: attack(tool, words, stand.port, given.work / name.replace(" ", "-")), stand)
    finally:
        recorder.stop()
    report.end()


def _under(report: Comparison, name: str, run, stand: Stand) -> None:
    healthy = Healthy(stand.port)
    memory = stand.memory()
    peak, held = [memory], [0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            peak[0] = max(peak[0], stand.memory())
            held.append(established(stand.port))

    watcher = threading.Thread(target=watch, daemon=True)
    healthy.start()
    watcher.start()
    all_closed = run()
    done.set()
    watcher.join()
    healthy.ended.set()
    healthy.join()
    # In the last second; one may be the healthy client's.
    left = 0 if all_closed else min(held[-5:])
    grown = peak[0] - memory
    report.must(f"{name}: failed of {healthy.asked} healthy requests (longest {healthy.longest * 1000:.0f} ms)", 0, healthy.failed)
    report.must(f"{name}: {max(held)} connections at most, held at the end", 0, 0 if left <= 1 else left)
    report.must(f"{name}: memory grew by {grown} KiB, at most {KIB * CONNECTIONS}", True, grown <= KIB * CONNECTIONS)


if __name__ == "__main__":
    main()
