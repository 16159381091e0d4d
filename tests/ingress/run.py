#!/usr/bin/env python3
"""Runs the matrix and the suites: `run.py --stand BINARY --hyper BINARY --work FOLDER SUITE… [WORDS FOR THE SUITE]`.

Each suite runs in a virtual environment made from `requirements/<suite>.txt`, kept in the work folder as long as that file
does not change. A suite that the machine can't run is skipped with its reason; where one fails or takes too long, so does this.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import venv
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from kit import table  # noqa: E402

#: The exit code of a suite that this machine can't run.
SKIPPED = 77


@dataclass(frozen=True)
class Suite:
    module: str
    #: The name of its requirements.
    needs: str
    #: Seconds after which it is taken for stuck.
    limit: int
    #: What it is, in a line.
    what: str


SUITES = {
    "matrix": Suite("matrix", "matrix", 420, "raw HTTP/1 and HTTP/2 requests, six origins"),
    "clients": Suite("suites.clients", "clients", 180, "curl and Node's clients"),
    "grpc": Suite("suites.grpc_interop", "grpc", 180, "grpcio, all kinds of calls"),
    "ws": Suite("suites.websocket", "ws", 900, "Autobahn's WebSocket cases"),
    "h2abuse": Suite("suites.h2abuse", "h2abuse", 600, "floods of HTTP/2, with hyperframe and h2"),
    "redbot": Suite("suites.redbot", "redbot", 420, "REDbot"),
    "sslyze": Suite("suites.sslyze_scan", "sslyze", 180, "sslyze, Mozilla's intermediate configuration"),
    "slowhttp": Suite("suites.slowhttp", "clients", 300, "slowhttptest's three attacks"),
}


def python_for(needs: str, work: Path) -> Path:
    """The interpreter of the environment with these requirements; made where it is not there."""
    file = HERE / "requirements" / f"{needs}.txt"
    folder = work / "venv" / f"{needs}-{hashlib.sha256(file.read_bytes()).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    if (folder / "complete").exists():
        return python
    for old in folder.parent.glob(f"{needs}-*"):
        shutil.rmtree(old)
    venv.create(folder, with_pip=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r", str(file)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise OSError(f"pip could not install what {file.name} names: see its message above")
    (folder / "complete").touch()
    return python


def run(name: str, suite: Suite, arguments: argparse.Namespace, rest: list[str]) -> tuple[str, str]:
    """(passed | skipped | FAILED, why)."""
    try:
        python = python_for(suite.needs, arguments.work)
    except (OSError, subprocess.SubprocessError) as error:
        return "FAILED", str(error)
    work = arguments.work / name
    work.mkdir(parents=True, exist_ok=True)
    command = [str(python), "-m", suite.module, "--stand", str(arguments.stand), "--hyper", str(arguments.hyper), "--work", str(work), *rest]
    # A session of its own, so that what it has started ends with it.
    process = subprocess.Popen(command, cwd=HERE, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    last = ""
    deadline = time.monotonic() + suite.limit

    def late(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, late)
    signal.alarm(suite.limit)
    try:
        for line in process.stdout:
            last = line.strip() or last
            print(line, end="", flush=True)
        code = process.wait(max(1, deadline - time.monotonic()))
    except (TimeoutError, subprocess.TimeoutExpired):
        return "FAILED", f"took more than {suite.limit} s"
    finally:
        signal.alarm(0)
        try:
            os.killpg(process.pid, signal.SIGTERM)
        except ProcessLookupError:
            pass
        process.wait()
    if code == SKIPPED:
        return "skipped", last
    return ("passed", last) if code == 0 else ("FAILED", f"exit code {code}")


def main() -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__, epilog="; ".join(f"{name}: {suite.what}" for name, suite in SUITES.items()))
    parser.add_argument("--stand", type=lambda text: Path(text).resolve(), required=True, help="the program `stand`, an example of ingress")
    parser.add_argument("--hyper", type=lambda text: Path(text).resolve(), required=True, help="the program `origin`, an example of ingress")
    parser.add_argument("--work", type=lambda text: Path(text).resolve(), required=True, help="a folder for environments, logs and results")
    parser.add_argument("suites", nargs="+", choices=list(SUITES), metavar="SUITE", help=f"one of {', '.join(SUITES)}")
    arguments, rest = parser.parse_known_args()
    rows = []
    for name in arguments.suites:
        print(f"\n── {name} ──", flush=True)
        begun = time.monotonic()
        how, why = run(name, SUITES[name], arguments, rest)
        rows.append([name, round(time.monotonic() - begun, 1), how, why])
    columns = ["suite", "seconds", "result", "said at last"]
    print("\n" + table.show(columns, rows))
    table.keep(arguments.work / "suites.json", columns, rows)
    return 1 if any(row[2] == "FAILED" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
