"""Autobahn's test cases on Python 3.

`autobahntestsuite` is for Python 2. Its cases (the package `case`: data and small scripts over eleven methods of a protocol)
are taken from the released source, brought to Python 3 by fissix in the work folder, and driven by Autobahn's own
protocol for Python 3. What was a byte string stays one as text in latin-1 and becomes bytes where it meets the protocol.

None of it is changed in what it sends and expects. Left out: the fuzzing server, reports.
"""

from __future__ import annotations

import binascii
import hashlib
import importlib
import re
import subprocess
import sys
import tarfile
import types
from pathlib import Path

VERSION = "25.10.1"
SHA256 = "b083d6e15330fc16f3e5f0975cce2b15f21bfa0c6db09547316b1852c6dbd6df"

#: What fissix does not know: text for bytes, integer division, zope's old declarations, Autobahn's own new names.
CHANGES = [
    (r"(?m)^import binascii$", "import latin1_binascii as binascii"),
    (r"from autobahn\.websocket\.utf8validator import Utf8Validator", "from latin1_binascii import Utf8Validator"),
    (r'chr\((\w)\)\.encode\("utf-8"\)', r'chr(\1).encode("utf-8").decode("latin-1")'),
    (r"len\(self\.payload\) / self", "len(self.payload) // self"),
    (r"\(object, Case, \)", "(Case, )"),
    (r"\b(request|accept)NoContextTakeover\b", r"\1_no_context_takeover"),
    (r"\b(request|accept)MaxWindowBits\b", r"\1_max_window_bits"),
    (r"(?m)^from zope\.interface import implements$", ""),
    (r"(?m)^ *implements\(.*\)$", ""),
]


def load(work: Path) -> list[type]:
    """The classes of all cases, in their order."""
    folder = work / f"autobahn-{VERSION}"
    if not (folder / "complete").exists():
        _unpack(work, folder)
    _stand_ins(folder)
    sys.path.insert(0, str(folder))
    package = importlib.import_module("case")
    # Two equal lists may be pickled differently.
    package.Case.compare = lambda self, one, other: one == other
    return list(package.Cases)


def name(case: type) -> str:
    """`Case1_2_3` is 1.2.3."""
    return case.__name__.removeprefix("Case").replace("_", ".")


def _unpack(work: Path, folder: Path) -> None:
    wanted = work / "autobahn.txt"
    wanted.write_text(f"autobahntestsuite=={VERSION} --hash=sha256:{SHA256}\n")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary", "autobahntestsuite"]
    subprocess.run([*pip, "--require-hashes", "-r", str(wanted), "-d", str(work)], check=True, stdin=subprocess.DEVNULL)
    archive = work / f"autobahntestsuite-{VERSION}.tar.gz"
    if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
        raise OSError(f"{archive.name} is not what was released")
    inside = f"autobahntestsuite-{VERSION}/autobahntestsuite/"
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            part = member.name.removeprefix(inside)
            if member.isfile() and part.startswith(("case/", "testdata/")) and ".." not in part:
                target = folder / part
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(tar.extractfile(member).read())
    for file in (folder / "case").glob("*.py"):
        # A byte of a literal becomes the character of that number.
        file.write_bytes(file.read_bytes().decode("latin-1").encode("utf-8"))
    subprocess.run([sys.executable, "-m", "fissix", "-w", "-n", str(folder / "case")], check=True, capture_output=True)
    for file in (folder / "case").glob("*.py"):
        text = file.read_text("utf-8")
        for old, new in CHANGES:
            text = re.sub(old, new, text)
        file.write_text(text, "utf-8")
    (folder / "complete").touch()


def _stand_ins(folder: Path) -> None:
    """Modules that the cases ask for, on text in latin-1."""
    from autobahn.websocket.utf8validator import Utf8Validator

    class Latin1Validator(Utf8Validator):
        def validate(self, text):
            return super().validate(text.encode("latin-1"))

    latin1 = types.ModuleType("latin1_binascii")
    latin1.b2a_hex = lambda text: binascii.b2a_hex(text.encode("latin-1") if isinstance(text, str) else text).decode()
    latin1.Utf8Validator = Latin1Validator
    sys.modules["latin1_binascii"] = latin1
    resources = types.ModuleType("pkg_resources")
    resources.resource_filename = lambda _, path: str(folder / path)
    sys.modules["pkg_resources"] = resources
