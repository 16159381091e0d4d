"""Runs the matrix: `python -m matrix --stand BINARY --hyper BINARY --work FOLDER [--only PART-OF-NAME] …`."""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from pathlib import Path

from kit import table
from kit.stand import Route, Stand

from . import h1, h2, known
from .h1 import RefusedByOrigin, Wrong
from .origins import Origin, start_all, stop_all

#: Time-outs of the stand in milliseconds: only a case that waits for one takes so long.
LIMITS = {"headerTimeout": 10_000, "bodyTimeout": 10_000, "keepAliveTimeout": 20_000}


def main() -> int:
    arguments = parse()
    arguments.work.mkdir(parents=True, exist_ok=True)
    work = arguments.work.resolve()
    origins, missing = start_all(work, arguments.hyper, arguments.origin)
    faults: list[tuple[str, str, str, object]] = []
    rows = []
    try:
        for origin in origins:
            with Stand(arguments.stand, work, [Route(origin.port)], limits=LIMITS, name=f"stand-{origin.name}") as stand:
                rows += [run(protocol, cases, player, origin, stand, arguments, faults) for protocol, cases, player in parts()]
    finally:
        stop_all(origins)
    for name, why in missing.items():
        rows.append(["", name, 0, 0, 0, 0, f"not here: {why}"])
    columns = ["protocol", "origin", "cases", "canonical", "refused by origin", "wrong", "note"]
    print(table.show(columns, rows))
    table.keep(work / "matrix.json", columns, rows)
    return verdict(faults, [origin.name for origin in origins])


def verdict(faults, origins: list[str]) -> int:
    """Tells each fault once; known ones in a line. The exit code."""
    bad, waiting = 0, 0
    for (protocol, name), found in itertools.groupby(faults_in_order(faults), lambda fault: fault[:2]):
        found = list(found)
        if known.known(protocol, name):
            waiting += 1
            continue
        bad += 1
        print(f"WRONG {protocol} {name} [{', '.join(origin for _, _, origin, _ in found)}]: {found[0][3]}")
    for protocol, cases, _ in parts():
        wrong = {name for at, name, _, _ in faults if at == protocol}
        # All was run, or it can't be told.
        for pattern in known.stale(protocol, wrong, {case.name for case in cases}) if complete(origins) else []:
            bad += 1
            print(f"RIGHT {protocol} {pattern}: take it from matrix/known.py")
    print(f"{bad} wrong, {waiting} known to be wrong (matrix/known.py)")
    return 1 if bad else 0


def complete(origins: list[str]) -> bool:
    return "recorder" in origins and not any(word in sys.argv for word in ("--only",))


def faults_in_order(faults):
    """By case; of one case, the recorder's first: it says most."""
    return sorted(faults, key=lambda fault: (fault[0], fault[1], fault[2] != "recorder", fault[2]))


def parts():
    yield "HTTP/1", h1.CASES, h1
    yield "HTTP/2", h2.CASES, h2


def run(protocol, cases, player, origin: Origin, stand: Stand, arguments, faults) -> list[object]:
    """All cases of a protocol against one origin; the row of the table."""
    strict = origin.name == "recorder"
    good = refused = wrong = ran = 0
    refusals = []
    origin.take("/--begin")
    for number, case in zip(itertools.count(), cases):
        if (case.recorder_only and not strict) or not any(part in case.name for part in arguments.only or [""]):
            continue
        ran += 1
        begun = time.monotonic()
        try:
            due = player.play(case, stand.port, strict=strict)
            h1.compare(origin.take(f"/--{number}"), [told for request in due if (told := origin.sees(request))], any_order=player is h2)
            good += bool(due)
        except RefusedByOrigin as status:
            # Whatever came before it on the connection was seen; nothing that looks like more may be.
            refused += 1
            refusals.append(f"{case.name} ({status})")
            if any("/smuggled" in seen.target for seen in origin.take(f"/--{number}")):
                faults.append((protocol, case.name, origin.name, "smuggled"))
        except Wrong as why:
            wrong += 1
            faults.append((protocol, case.name, origin.name, why))
            origin.take(f"/--{number}-end")
        if (took := time.monotonic() - begun) > 2:
            print(f"slow: {case.name} [{origin.name}] {took:.1f} s", file=sys.stderr)
        if not stand.is_running():
            raise SystemExit(f"the stand died at {case.name}: {stand.log}")
    if arguments.verbose and refusals:
        print(f"{origin.name} does not take: {', '.join(refusals)}")
    return [protocol, origin.name, ran, good, refused, wrong, ""]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="matrix", description=__doc__)
    parser.add_argument("--stand", type=Path, required=True, help="the program `stand`, an example of ingress")
    parser.add_argument("--hyper", type=Path, required=True, help="the program `origin`, an example of ingress")
    parser.add_argument("--work", type=Path, required=True, help="a folder for logs and results")
    parser.add_argument("--origin", action="append", default=[], help="only this origin (may be repeated)")
    parser.add_argument("--only", action="append", help="only cases with this in their name (may be repeated)")
    parser.add_argument("--verbose", action="store_true", help="also say what each origin does not take")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
