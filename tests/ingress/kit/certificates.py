"""A certificate authority for one run and a leaf of it, made by openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from .programs import ProgramError, find


@dataclass(frozen=True)
class Leaf:
    """Paths of PEM files. `chain` is the leaf with its issuer, `authority` what clients trust."""

    chain: Path
    key: Path
    authority: Path


def make(folder: Path, *hosts: str) -> Leaf:
    """A P-256 leaf for the hosts, valid for a month, under an authority of its own."""
    openssl = find("openssl")
    if not openssl:
        raise ProgramError("openssl is not installed: type `sudo apt-get install -y openssl`")
    folder.mkdir(parents=True, exist_ok=True)
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-sha256"]
    names = ",".join(f"DNS:{host}" for host in hosts)

    def run(*words: str) -> None:
        done = subprocess.run([openssl, *words], cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise ProgramError(f"openssl {words[0]} failed:\n{done.stderr}")

    authority = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    run("req", "-x509", *curve, "-days", "31", "-subj", "/CN=Test authority", *authority, "-keyout", "ca.key", "-out", "ca.pem")
    run("req", *curve, "-subj", f"/CN={hosts[0]}", "-keyout", "leaf.key", "-out", "leaf.csr")
    (folder / "leaf.ext").write_text(
        f"subjectAltName={names}\nbasicConstraints=critical,CA:FALSE\n"
        "keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n"
    )
    signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30", "-extfile", "leaf.ext"]
    run("x509", "-req", "-in", "leaf.csr", "-sha256", *signing, "-out", "leaf.pem")
    chain = folder / "chain.pem"
    chain.write_bytes((folder / "leaf.pem").read_bytes() + (folder / "ca.pem").read_bytes())
    return Leaf(chain, folder / "leaf.key", folder / "ca.pem")
