"""REDbot, which looks for faults of HTTP in a resource and asks it again with conditions, ranges and encodings:
what it notes must be the same through ingress as of nginx itself."""

from __future__ import annotations

import re
import subprocess
import sys

from kit.programs import ProgramError
from kit.site import Site
from kit.stand import HOST, Route, Stand

from .common import Comparison, arguments, skip

PATHS = ["/", "/index.html", "/a.css", "/a.json", "/large.bin", "/small.bin", "/cookie", "/moved", "/found", "/empty", "/teapot", "/forbidden", "/old", "/missing"]

#: REDbot asks the resolver, which need not know what RFC 6761, section 6.3, says of `localhost`.
RUN = """
import socket, sys
import dns.resolver

class Loopback:
    def addresses_and_families(self):
        return [("127.0.0.1", socket.AF_INET)]

asked = dns.resolver.resolve_name
dns.resolver.resolve_name = lambda name, *rest, **more: Loopback() if str(name).endswith("localhost") else asked(name, *rest, **more)
from redbot.cli import main
sys.argv = ["redbot", "-o", "text", sys.argv[1]]
main()
"""


def notes(port: int, path: str) -> str:
    """What it says, without what differs from run to run: ports, dates, how long ago."""
    command = [sys.executable, "-c", RUN, f"http://{HOST}:{port}{path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    text = done.stdout if done.returncode == 0 else f"exit {done.returncode}: {done.stderr[-300:]}"
    head, empty, rest = text.partition("\n\n")
    # Names of fields in one form; Connection is of one hop.
    fields = [re.sub(r"^[\w-]+:", lambda name: name[0].lower(), line) for line in head.splitlines()]
    text = "\n".join(line for line in fields if not line.startswith("connection:")) + empty + rest
    text = re.sub(rf":{port}\b", ":<port>", text)
    text = re.sub(r"(?im)^( *date:).*$", r"\1 <now>", text)
    return re.sub(r"\b\d+ (second|minute)s?\b", r"<time>", text)


def main() -> None:
    given = arguments(__doc__)
    report = Comparison("redbot", given.work)
    try:
        site = Site(given.work / "site")
    except ProgramError as why:
        skip(str(why))
    with site, Stand(given.stand, given.work, [Route(site.port)]) as stand:
        for path in PATHS:
            direct, ingress = notes(site.port, path), notes(stand.port, path)
            (given.work / f"redbot{path.replace('/', '-')}.direct.txt").write_text(direct)
            (given.work / f"redbot{path.replace('/', '-')}.ingress.txt").write_text(ingress)
            missing, added = _difference(direct, ingress)
            if not direct.startswith("HTTP/1.1 "):
                report.must(f"{path}: is looked at", "HTTP/1.1 …", direct)
            report.add(f"{path}: {len(direct.splitlines())} lines", "; ".join(missing) or "the same", "; ".join(added) or "the same")
    report.end()


def _difference(direct: str, ingress: str) -> tuple[list[str], list[str]]:
    """Lines that only one of them has. The order of fields has no meaning."""
    left, right = sorted(direct.splitlines()), sorted(ingress.splitlines())
    return [line.strip() for line in left if line not in right], [line.strip() for line in right if line not in left]


if __name__ == "__main__":
    main()
