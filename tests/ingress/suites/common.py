"""What suites share: arguments, the comparison of direct and through ingress, skipping with a reason."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path

from kit import table

#: The exit code of a suite that this machine can't run; the last line on standard output says why.
SKIPPED = 77


def arguments(description: str | None) -> argparse.Namespace:
    """`--stand` and `--work`, absolute; the folder is there."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--stand", type=Path, required=True, help="the program `stand`, an example of ingress")
    parser.add_argument("--hyper", type=Path, required=True, help="the program `origin`, an example of ingress")
    parser.add_argument("--work", type=Path, required=True, help="a folder for logs and results")
    parser.add_argument("--no-tls", dest="tls", action="store_false", help="leave out what needs TLS")
    parser.add_argument("--only", default="", help="only what has this in its name")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    given.work, given.stand, given.hyper = given.work.resolve(), given.stand.resolve(), given.hyper.resolve()
    return given


def skip(reason: str) -> None:
    print(reason)
    sys.exit(SKIPPED)


@dataclass
class Comparison:
    """Rows of (what, direct, through ingress). The two have to be the same, or the difference has a reason."""

    name: str
    work: Path
    #: Differences that are meant, by what: the reason.
    explained: dict[str, str] = field(default_factory=dict)
    rows: list[list[object]] = field(default_factory=list)
    wrong: int = 0

    def add(self, what: str, direct: object, ingress: object) -> None:
        same = direct == ingress
        reason = "" if same else self.explained.get(what, "")
        self.wrong += not same and not reason
        verdict = "same" if same else f"explained: {reason}" if reason else "DIFFERENT"
        self.rows.append([what, _short(direct), _short(ingress), verdict])

    def must(self, what: str, expected: object, got: object) -> None:
        """For what can't be asked of an origin alone."""
        good = expected == got
        self.wrong += not good
        self.rows.append([what, _short(expected), _short(got), "good" if good else "WRONG"])

    def end(self, *, only_differences: bool = False) -> None:
        """Prints the table and ends the program."""
        columns = [self.name, "direct", "ingress", "verdict"]
        rows = [row for row in self.rows if not only_differences or row[3] not in ("same", "good")]
        print(table.show(columns, rows))
        table.keep(self.work / f"{self.name}.json", columns, self.rows)
        print(f"{self.name}: {len(self.rows)} compared, {self.wrong} wrong")
        sys.exit(1 if self.wrong else 0)


def _short(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    text = text.replace("\n", "\\n").replace("\r", "\\r")
    return text if len(text) <= 70 else f"{text[:67]}..."
