"""The program under test: `host/ingress/examples/stand.rs`, ingress alone with its routes from a file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from .certificates import Leaf
from .programs import Program

#: `<slug>.localhost` is the host that all cases ask for.
SLUG = "app"
HOST = f"{SLUG}.localhost"


@dataclass(frozen=True)
class Route:
    """A host of the stand, `<slug>.localhost`, and where it leads. `scheme`: `http` or `h2c`."""

    port: int
    slug: str = SLUG
    scheme: str = "http"


class Stand(Program):
    """A stand that listens. `port` is plain, `tls_port` is there where a certificate was given."""

    def __init__(
        self,
        binary: Path,
        work: Path,
        routes: list[Route],
        *,
        limits: dict[str, int] | None = None,
        certificate: Leaf | None = None,
        name: str = "stand",
    ) -> None:
        config: dict[str, object] = {
            "listen": ["127.0.0.1:0"],
            "routes": [
                {"slug": route.slug, "upstream": f"127.0.0.1:{route.port}", "scheme": route.scheme}
                for route in routes
            ],
            "limits": limits or {},
        }
        if certificate:
            config["tlsListen"] = ["127.0.0.1:0"]
            config["certificates"] = [{"certificate": str(certificate.chain), "key": str(certificate.key)}]
        file = work / f"{name}.json"
        file.write_text(json.dumps(config, indent=1))
        super().__init__(name, [str(binary), str(file)], work / f"{name}.log")
        try:
            line, _ = self.line(lambda line: line.startswith("{"))
        except BaseException:
            self.stop()
            raise
        addresses = json.loads(line)
        self.port = _port(addresses["listen"])
        self.tls_port = _port(addresses.get("tlsListen") or [])


def _port(addresses: list[str]) -> int:
    return int(addresses[0].rpartition(":")[2]) if addresses else 0
