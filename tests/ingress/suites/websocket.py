"""Autobahn's WebSocket cases against an echo server, directly and through ingress: how each one behaves and closes.

Cases 12 and 13 (compression) send a thousand messages each in eighteen sizes; four of the sizes are run. `--only 12.` and
`--all` run more.
"""

from __future__ import annotations

import sys
from pathlib import Path

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from autobahn.websocket.protocol import WebSocketProtocol
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore
from twisted.python import log

from kit.programs import Program
from kit.stand import HOST, Route, Stand

from . import autobahn_cases
from .common import Comparison, arguments

#: So many cases at once: many of them wait for a second or more.
AT_ONCE = 6
#: Seconds for a case: only a fault takes that long.
LIMIT = 240
#: Of the eighteen sizes of cases 12 and 13: 16 B, 1 KiB, 8 KiB, 8 KiB in fragments of 256.
SIZES = {1, 4, 6, 11}


class Player(WebSocketClientProtocol):
    """Autobahn's client with what its fuzzing client adds for cases. It is a case's `p`, by way of [`Facade`]."""

    run_case = None

    def onConnect(self, response):
        pass

    def onOpen(self):
        self.facade.connectionWasOpen = True
        self.run_case.onOpen()

    def onMessage(self, payload, isBinary):
        self.run_case.onMessage(payload if self.factory.in_bytes else payload.decode("latin-1"), isBinary)

    def onPing(self, payload):
        # Autobahn's answer, then the case's note.
        super().onPing(payload)
        self.run_case.onPing(payload.decode("latin-1"))

    def onPong(self, payload):
        self.run_case.onPong(payload.decode("latin-1"))

    def onClose(self, wasClean, code, reason):
        self.run_case.onClose(wasClean, code, reason)

    def logTxFrame(self, header, payload, repeatLength, chopsize, sync):
        sent = self.facade.txFrameStats
        sent[header.opcode] = sent.get(header.opcode, 0) + 1

    def logRxFrame(self, header, payload):
        pass

    def logTxOctets(self, data, sync):
        pass

    def logRxOctets(self, data):
        pass

    def connectionMade(self):
        self.facade = Facade(self)
        self.run_case = self.factory.case(self.facade)
        super().connectionMade()
        self.logFrames = True

    def connectionLost(self, reason):
        super().connectionLost(reason)
        case = self.run_case
        try:
            case.onConnectionLost(self.failedByMe)
        except Exception as error:
            self.factory.finish(("ERROR", repr(error), ""))
            raise
        self.factory.finish((case.behavior, case.behaviorClose, f"{case.result} {case.resultClose}"))


def _bytes(text):
    return text.encode("latin-1") if isinstance(text, str) else text


class Facade:
    """The protocol as a case of Python 2 knows it: text for bytes, the names of then."""

    def __init__(self, protocol: Player) -> None:
        object.__setattr__(self, "_protocol", protocol)
        self.connectionWasOpen = False
        self.createWirelog = False
        self.txFrameStats = {}

    def __getattr__(self, name):
        return getattr(self._protocol, name)

    def __setattr__(self, name, value):
        own = name in ("connectionWasOpen", "createWirelog", "txFrameStats", "localCloseReason")
        object.__setattr__(self if own else self._protocol, name, value)

    def sendFrame(self, opcode, payload="", fin=True, rsv=0, mask=None, payload_len=None, chopsize=None, sync=False):
        self._protocol.sendFrame(opcode, _bytes(payload), fin, rsv, mask, payload_len, chopsize, sync)

    def sendMessage(self, payload, isBinary=False, fragmentSize=None, sync=False):
        self._protocol.sendMessage(_bytes(payload), isBinary, fragmentSize, sync)

    def sendPing(self, payload=None):
        self._protocol.sendPing(_bytes(payload))

    def sendClose(self, code=None, reason=None):
        self._protocol.sendClose(code, reason)

    def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False):
        self._protocol.sendCloseFrame(code, _bytes(reasonUtf8), isReply)

    def beginMessage(self, opcode=WebSocketProtocol.MESSAGE_TYPE_TEXT):
        self._protocol.beginMessage(opcode == WebSocketProtocol.MESSAGE_TYPE_BINARY)

    def sendMessageFrame(self, payload, sync=False):
        self._protocol.sendMessageFrame(_bytes(payload), sync)

    def sendMessageFrameData(self, payload, sync=False):
        self._protocol.sendMessageFrameData(_bytes(payload), sync)

    def enableWirelog(self, enable):
        self.createWirelog = enable

    def continueLater(self, delay, then, tag=None):
        reactor.callLater(delay, lambda: self._is_open() and then())

    def killAfter(self, delay):
        reactor.callLater(delay, lambda: self._is_open() and self._protocol.failConnection())

    def closeAfter(self, delay):
        reactor.callLater(delay, lambda: self._is_open() and self._protocol.sendClose())

    def failConnection(self):
        self._protocol.failConnection()

    def _is_open(self) -> bool:
        return self._protocol.state != WebSocketProtocol.STATE_CLOSED


class Factory(WebSocketClientFactory):
    """One case's connection."""

    protocol = Player
    noisy = False

    def __init__(self, case: type, port: int) -> None:
        super().__init__(f"ws://{HOST}:{port}/")
        self.case, self.done = case, Deferred()
        # Cases 12 and 13 hash what they send and get.
        self.in_bytes = autobahn_cases.name(case).startswith(("12.", "13."))
        # As its fuzzing client: the peer is to be found out, not helped.
        self.setProtocolOptions(failByDrop=False, utf8validateIncoming=False, openHandshakeTimeout=30, closeHandshakeTimeout=15, serverConnectionDropTimeout=15)
        if self.in_bytes:
            self.setProtocolOptions(perMessageCompressionOffers=case.CLIENT_OFFERS, perMessageCompressionAccept=_accept)

    def finish(self, result: object) -> None:
        if not self.done.called:
            self.done.callback(result)

    def clientConnectionFailed(self, _, reason):
        self.finish(("NOT CONNECTED", reason.getErrorMessage(), ""))


def _accept(response):
    from autobahn.websocket.compress import PerMessageDeflateResponse, PerMessageDeflateResponseAccept

    return PerMessageDeflateResponseAccept(response) if isinstance(response, PerMessageDeflateResponse) else None


def play(cases: list[type], port: int) -> Deferred:
    """All cases, some at once; gives a list of their results, in order."""
    turns = DeferredSemaphore(AT_ONCE)

    def one(case: type) -> Deferred:
        factory = Factory(case, port)
        connector = reactor.connectTCP("127.0.0.1", port, factory)
        late = reactor.callLater(LIMIT, lambda: (factory.finish(("TOOK TOO LONG", "", "")), connector.disconnect()))
        factory.done.addBoth(lambda result: (late.active() and late.cancel(), result)[1])
        return factory.done

    return DeferredList([turns.run(one, case) for case in cases])


def chosen(cases: list[type], only: str, everything: bool) -> list[type]:
    def is_chosen(case: type) -> bool:
        parts = autobahn_cases.name(case).split(".")
        if parts[0] in ("12", "13") and not (everything or only):
            return int(parts[2]) in SIZES
        return autobahn_cases.name(case).startswith(only)

    return [case for case in cases if is_chosen(case)]


def main() -> None:
    everything = "--all" in sys.argv
    sys.argv = [word for word in sys.argv if word != "--all"]
    given = arguments(__doc__)
    cases = chosen(autobahn_cases.load(given.work), given.only, everything)
    echo = Path(__file__).parents[1] / "origins" / "websocket_echo.py"
    report = Comparison("ws", given.work)
    errors: list[str] = []
    log.addObserver(lambda event: event.get("isError") and errors.append(log.textFromEventDict(event) or ""))
    results: dict[str, list] = {}

    def run() -> None:
        import json

        with Program("echo", [sys.executable, str(echo)], given.work / "echo.log") as origin:
            port = json.loads(origin.line()[0])["ready"]
            with Stand(given.stand, given.work, [Route(port)]) as stand:
                first = play(cases, port)
                first.addCallback(lambda told: results.__setitem__("direct", told))
                first.addCallback(lambda _: play(cases, stand.port))
                first.addCallback(lambda told: results.__setitem__("ingress", told))
                first.addErrback(lambda failure: errors.append(failure.getTraceback()))
                first.addBoth(lambda _: reactor.stop())
                reactor.run()

    run()
    if "ingress" not in results:
        raise SystemExit("\n".join(text[:2000] for text in errors))
    for case, (_, direct), (_, ingress) in zip(cases, results["direct"], results["ingress"]):
        report.add(autobahn_cases.name(case), _judged(direct), _judged(ingress))
    counts: dict[str, int] = {}
    for _, result in results["ingress"]:
        counts[f"{result[0]}, closed {result[1]}"] = counts.get(f"{result[0]}, closed {result[1]}", 0) + 1
    print("through ingress:", "; ".join(f"{count} × {how}" for how, count in sorted(counts.items())))
    for text in errors[:3]:
        print(text[-1500:], file=sys.stderr)
    report.end(only_differences=True)


def _judged(result: tuple[str, str, str]) -> str:
    """How a case behaved and closed. OK and NON-STRICT both pass: which of them often hangs on how bytes fall into segments."""
    behaviour = "passed" if result[0] in ("OK", "NON-STRICT") else result[0]
    return f"{behaviour}, closed {result[1]}"


if __name__ == "__main__":
    main()
