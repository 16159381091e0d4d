"""Cases in which ingress does not do what they ask for, with what it does instead: canonical all the same, but
by the HTTP library under it, which drops fragments, pseudo-header fields in trailers, and the difference between
`http://host` and `http://host/` before ingress sees them.

A case here does not fail the run; one that comes right does, so that it is taken from this list. Patterns as in
`fnmatch`, by protocol.
"""

from fnmatch import fnmatch

KNOWN: dict[str, dict[str, str]] = {
    "HTTP/1": {
        "target-fragment*": "goes on without the fragment",
        "absolute-fragment": "goes on without the fragment",
        "absolute-options-asterisk": "goes on as OPTIONS /",
    },
    "HTTP/2": {
        "trailer-bad-pseudo": "passed over",
        "trailer-bad-status": "passed over",
        "path-fragment": "goes on without the fragment",
    },
}


def known(protocol: str, name: str) -> str | None:
    """What ingress does instead; None for all other cases."""
    return next((what for pattern, what in KNOWN[protocol].items() if fnmatch(name, pattern)), None)


def stale(protocol: str, wrong: set[str], ran: set[str]) -> list[str]:
    """Patterns of which cases ran, and none was wrong."""
    matching = lambda pattern, names: any(fnmatch(name, pattern) for name in names)
    return [pattern for pattern in KNOWN[protocol] if matching(pattern, ran) and not matching(pattern, wrong)]
