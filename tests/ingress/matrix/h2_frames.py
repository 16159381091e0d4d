"""Frames and connections of HTTP/2: states, sizes, windows, floods, extended CONNECT."""

from kit.frames import (
    ACK, CANCEL, COMPRESSION_ERROR, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR, GOAWAY, HEADERS, INTERNAL_ERROR, NO_ERROR, PADDED, PING, PREFACE, PRIORITISED, PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE,
    REFUSED_STREAM, RST_STREAM, SETTINGS, STREAM_CLOSED, WINDOW_UPDATE, block, data, frame, headers, literal, number, settings,
)  # fmt: skip

from .case import Answered, Request
from .h2_case import Contained, GoAway, Malformed, Passed, Table, get, head

T = Table()
add = T.add

PROTOCOL = GoAway()
SIZE = GoAway((FRAME_SIZE_ERROR, PROTOCOL_ERROR))
GOOD = Request()

# What is odd and good
whole = block(*head())
add("padded-headers", headers(1, *head(), flags=PADDED, prefix=b"\x05", suffix=b"\0" * 5), GOOD, why="RFC 9113 6.2")
add("padded-data", headers(1, *head(method="POST"), end=False) + frame(DATA, END_STREAM | PADDED, 1, b"\x03hello\0\0\0"), Request("POST", body=b"hello"), why="RFC 9113 6.1")
add("padding-only-data", headers(1, *head(method="POST"), end=False) + frame(DATA, PADDED, 1, b"\x03\0\0\0") + data(1, b"hello"), Request("POST", body=b"hello"), why="RFC 9113 6.1")
add("priority-in-headers", headers(1, *head(), flags=PRIORITISED, prefix=b"\0\0\0\0\x10"), GOOD, why="RFC 9113 5.3.2: read and passed over")
add("priority-frames", frame(PRIORITY, 0, 5, b"\0\0\0\x03\x10") + get(), GOOD, why="RFC 9113 5.3.2, 6.3")
add("continuation-byte-by-byte", frame(HEADERS, END_STREAM, 1) + b"".join(frame(CONTINUATION, END_HEADERS if at == 5 else 0, 1, whole[at : at + 1] if at < 5 else whole[5:]) for at in range(6)), GOOD, why="RFC 9113 6.10")
add("continuation-empty-last", frame(HEADERS, END_STREAM, 1, whole) + frame(CONTINUATION, END_HEADERS, 1), GOOD, why="RFC 9113 6.10")
add("unknown-type", frame(0x42, 0xFF, 0, b"abc") + frame(0x42, 0, 1, b"abc") + get(), GOOD, why="RFC 9113 4.1, 5.5: passed over")
add("unknown-flags", headers(1, *head(), flags=0xD2 & ~(PADDED | PRIORITISED)), GOOD, why="RFC 9113 4.1")
add("unknown-setting", settings((0x7777, 1), (0x8, 0)) + get(), GOOD, why="RFC 9113 6.5.2")
add("reserved-bit", frame(HEADERS, END_HEADERS | END_STREAM, 0x80000001, whole), GOOD, why="RFC 9113 4.1: passed over")
add("settings-many-good", settings((1, 0), (3, 10), (4, 65_535), (5, 16_384), (6, 100_000)) + get(), GOOD, why="RFC 9113 6.5.2")
add("ping", frame(PING, 0, 0, b"12345678") + get(), GOOD, why="RFC 9113 6.7")
add("ping-unasked-ack", frame(PING, ACK, 0, b"12345678") + get(), GOOD, why="RFC 9113 6.7")
add("window-update", frame(WINDOW_UPDATE, 0, 0, number(1000)) + get(), GOOD, why="RFC 9113 6.9")
add("streams-skipped", get(stream=1) + get(stream=5, path="/b"), GOOD, Passed(), Request(target="/b"), why="RFC 9113 5.1.1: ids may be left out")
add("goaway-then-answer", get(path="/maybe") + frame(GOAWAY, 0, 0, number(0) + number(NO_ERROR)), Contained((NO_ERROR,)), why="RFC 9113 6.8: what is under way is answered")
add("cancelled-then-next", headers(1, *head(method="POST"), end=False) + frame(RST_STREAM, 0, 1, number(CANCEL)) + get(stream=3, path="/b"), Passed(), Request(target="/b"), why="RFC 9113 6.4: the origin gets no whole request on 1")
add("data-after-own-reset", headers(1, *head(method="POST"), end=False) + frame(RST_STREAM, 0, 1, number(CANCEL)) + data(1, b"late") + get(stream=3, path="/maybe"), Contained((STREAM_CLOSED, PROTOCOL_ERROR)), why="RFC 9113 5.1: closed")

# Streams
add("data-on-0", data(0, b"x"), PROTOCOL, why="RFC 9113 6.1")
add("headers-on-0", headers(0, *head()), PROTOCOL, why="RFC 9113 6.2")
add("continuation-on-0", frame(HEADERS, 0, 1, whole) + frame(CONTINUATION, END_HEADERS, 0), PROTOCOL, why="RFC 9113 6.10")
add("rst-on-0", frame(RST_STREAM, 0, 0, number(0)), PROTOCOL, why="RFC 9113 6.4")
add("priority-on-0", frame(PRIORITY, 0, 0, b"\0\0\0\x03\x10"), PROTOCOL, why="RFC 9113 6.3")
add("settings-on-1", frame(SETTINGS, 0, 1), PROTOCOL, why="RFC 9113 6.5")
add("ping-on-1", frame(PING, 0, 1, b"12345678"), PROTOCOL, why="RFC 9113 6.7")
add("goaway-on-1", frame(GOAWAY, 0, 1, number(0) + number(0)), PROTOCOL, why="RFC 9113 6.8")
add("even-stream", headers(2, *head()), PROTOCOL, why="RFC 9113 5.1.1")
add("lower-stream", get(stream=3, path="/maybe") + get(stream=1, path="/maybe"), GoAway((PROTOCOL_ERROR, STREAM_CLOSED)), why="RFC 9113 5.1.1: ids only grow")
add("data-on-idle", data(1, b"x"), PROTOCOL, why="RFC 9113 5.1: idle")
add("rst-on-idle", frame(RST_STREAM, 0, 1, number(0)), PROTOCOL, why="RFC 9113 5.1, 6.4")
add("window-update-on-idle", frame(WINDOW_UPDATE, 0, 1, number(1)), PROTOCOL, why="RFC 9113 5.1")
add("continuation-alone", frame(CONTINUATION, END_HEADERS, 1, whole), PROTOCOL, why="RFC 9113 6.10")
add("continuation-other-stream", frame(HEADERS, END_STREAM, 1, whole) + frame(CONTINUATION, END_HEADERS, 3), PROTOCOL, why="RFC 9113 6.10")
add("data-between-continuations", frame(HEADERS, 0, 1, whole) + data(1, b"x") + frame(CONTINUATION, END_HEADERS, 1), PROTOCOL, why="RFC 9113 6.2")
add("ping-between-continuations", frame(HEADERS, END_STREAM, 1, whole) + frame(PING, 0, 0, b"12345678") + frame(CONTINUATION, END_HEADERS, 1), PROTOCOL, why="RFC 9113 6.2")
add("unknown-between-continuations", frame(HEADERS, END_STREAM, 1, whole) + frame(0x42, 0, 0) + frame(CONTINUATION, END_HEADERS, 1), PROTOCOL, why="RFC 9113 5.5")
add("push-promise", frame(PUSH_PROMISE, END_HEADERS, 1, number(2) + whole), PROTOCOL, why="RFC 9113 8.4: a client can't push")
add("data-after-end", get(path="/maybe") + data(1, b"x"), Contained((STREAM_CLOSED, PROTOCOL_ERROR)), why="RFC 9113 5.1: half-closed (remote)")
add("headers-after-end", get(path="/maybe") + get(path="/maybe"), Contained((STREAM_CLOSED, PROTOCOL_ERROR)), why="RFC 9113 5.1: STREAM_CLOSED")
add("priority-self-in-headers", headers(1, *head(path="/maybe"), flags=PRIORITISED, prefix=b"\0\0\0\x01\x10"), Contained((PROTOCOL_ERROR,)), why="RFC 7540 5.3.1; RFC 9113 no longer says")
add("priority-self", frame(PRIORITY, 0, 1, b"\0\0\0\x01\x10") + get(path="/maybe"), Contained((PROTOCOL_ERROR,)), why="RFC 7540 5.3.1; RFC 9113 no longer says")

# Sizes
add("frame-too-large", frame(DATA, 0, 1, b"x" * 16_385), GoAway((FRAME_SIZE_ERROR, PROTOCOL_ERROR)), why="RFC 9113 4.2")
add("headers-too-large", frame(HEADERS, END_HEADERS | END_STREAM, 1, whole + literal("x-a", "a" * 17_000)), SIZE, why="RFC 9113 4.2: of the whole connection")
add("frame-length-16-mib", frame(DATA, 0, 1, b"x", length=0xFFFFFF), SIZE, why="RFC 9113 4.2")
for name, (kind, stream, payload) in {
    "settings-5-bytes": (SETTINGS, 0, b"12345"), "ping-7-bytes": (PING, 0, b"1234567"), "ping-9-bytes": (PING, 0, b"123456789"),
    "window-update-3-bytes": (WINDOW_UPDATE, 0, b"\0\0\1"), "rst-3-bytes": (RST_STREAM, 1, b"\0\0\1"), "goaway-7-bytes": (GOAWAY, 0, b"1234567"),
}.items():  # fmt: skip
    before = headers(1, *head(method="POST"), end=False) if stream else b""
    add(f"size-{name}", before + frame(kind, 0, stream, payload), SIZE, why="RFC 9113 6: FRAME_SIZE_ERROR")
add("size-settings-ack-with-payload", frame(SETTINGS, ACK, 0, b"\0" * 6), SIZE, why="RFC 9113 6.5")
add("size-priority-4-bytes", frame(PRIORITY, 0, 1, b"\0\0\0\3") + get(path="/maybe"), Contained((FRAME_SIZE_ERROR, PROTOCOL_ERROR)), why="RFC 9113 6.3: of the stream")
add("size-headers-empty", frame(HEADERS, END_HEADERS | END_STREAM, 1), Malformed(), why="RFC 9113 8.3.1: no pseudo-header field")
add("size-padding-whole", headers(1, *head(method="POST"), end=False) + frame(DATA, PADDED | END_STREAM, 1, b"\x06hello"), PROTOCOL, why="RFC 9113 6.1: padding as long as the payload")
add("size-padding-headers", frame(HEADERS, PADDED | END_HEADERS | END_STREAM, 1, b"\xff" + whole), PROTOCOL, why="RFC 9113 6.2")
add("size-padded-empty", headers(1, *head(method="POST"), end=False) + frame(DATA, PADDED | END_STREAM, 1), GoAway((PROTOCOL_ERROR, FRAME_SIZE_ERROR)), why="RFC 9113 6.1: no room for the pad length")

# Settings
for name, (setting, value, codes) in {
    "window-too-large": (4, 0x80000000, (FLOW_CONTROL_ERROR, PROTOCOL_ERROR)), "frame-too-small": (5, 16_383, (PROTOCOL_ERROR,)),
    "frame-too-large": (5, 0x1000000, (PROTOCOL_ERROR,)), "push-2": (2, 2, (PROTOCOL_ERROR,)), "connect-2": (8, 2, (PROTOCOL_ERROR,)),
}.items():  # fmt: skip
    add(f"settings-{name}", settings((setting, value)), GoAway(codes), why="RFC 9113 6.5.2")
add("settings-window-zero", settings((4, 0)) + headers(1, *head(path="/maybe")), Contained((NO_ERROR,)), why="RFC 9113 6.9.2: the answer waits", recorder_only=True)

# Windows
add("window-zero-on-0", frame(WINDOW_UPDATE, 0, 0, number(0)), PROTOCOL, why="RFC 9113 6.9")
add("window-zero-on-stream", headers(1, *head(method="POST"), end=False) + frame(WINDOW_UPDATE, 0, 1, number(0)), Malformed((PROTOCOL_ERROR,)), why="RFC 9113 6.9")
add("window-overflow-on-0", frame(WINDOW_UPDATE, 0, 0, number(0x7FFFFFFF)), GoAway((FLOW_CONTROL_ERROR, PROTOCOL_ERROR)), why="RFC 9113 6.9.1")
add("window-overflow-on-stream", headers(1, *head(method="POST"), end=False) + frame(WINDOW_UPDATE, 0, 1, number(0x7FFFFFFF)), Malformed((FLOW_CONTROL_ERROR, PROTOCOL_ERROR)), why="RFC 9113 6.9.1")
add("window-exceeded", headers(1, *head(method="POST", path="/early"), end=False) + b"".join(data(1, b"x" * 16_384, end=False) for _ in range(200)), Contained((FLOW_CONTROL_ERROR, ENHANCE_YOUR_CALM, STREAM_CLOSED, NO_ERROR, PROTOCOL_ERROR)), why="RFC 9113 6.9: 3 MiB into a smaller window", recorder_only=True)

# HPACK
for name, payload in {
    "index-0": b"\x80", "index-too-high": b"\xff\x80\x01", "table-size-too-large": b"\x3f\xe1\xff\x03", "table-size-after-field": b"\x82\x3f\x01", "integer-overflow": b"\xff" + b"\xff" * 12 + b"\x01",
    "string-too-long": b"\x00\x7f\xff\xff\x0f", "huffman-eos": b"\x00\x84\xff\xff\xff\xff\x01a", "huffman-padding": b"\x00\x82\x1f\xff\x01a", "cut": whole[:-3],
}.items():  # fmt: skip
    add(f"hpack-{name}", frame(HEADERS, END_HEADERS | END_STREAM, 1, payload), GoAway((COMPRESSION_ERROR, PROTOCOL_ERROR)), why="RFC 7541 2.3.3, 4.2, 5.1, 5.2, 6.3")

# Prefaces
add("preface-no-settings", PREFACE + get(path="/maybe"), Contained(), why="RFC 9113 3.4: SETTINGS first, or an error; harmless either way", greet=False)
add("preface-wrong-end", PREFACE[:-6] + b"XX\r\n\r\n" + settings() + get(), GoAway(silent=True), why="RFC 9113 3.4", greet=False)
add("preface-settings-ack-first", PREFACE + frame(SETTINGS, ACK, 0) + get(path="/maybe"), Contained(), why="RFC 9113 3.4; harmless either way", greet=False)
add("preface-twice", PREFACE + get(), GoAway((PROTOCOL_ERROR, FRAME_SIZE_ERROR)), why="RFC 9113 3.4: once")
add("preface-then-http1", b"GET /smuggled HTTP/1.1\r\nHost: app.localhost\r\n\r\n", GoAway((PROTOCOL_ERROR, FRAME_SIZE_ERROR)), why="HTTP/1 behind the preface is no frame")

# Floods
def many(times: int, make) -> bytes:
    return b"".join(make(2 * at + 1) for at in range(times))


flood = Contained((ENHANCE_YOUR_CALM, PROTOCOL_ERROR, INTERNAL_ERROR, REFUSED_STREAM))
add("flood-rapid-reset", many(2000, lambda n: get(stream=n, path="/maybe") + frame(RST_STREAM, 0, n, number(CANCEL))), Contained((ENHANCE_YOUR_CALM, PROTOCOL_ERROR)), why="CVE-2023-44487", recorder_only=True)
add("flood-made-you-reset", many(2000, lambda n: get(stream=n, path="/maybe") + frame(WINDOW_UPDATE, 0, n, number(0))), Contained((ENHANCE_YOUR_CALM, PROTOCOL_ERROR)), why="CVE-2025-8671", recorder_only=True)
add("flood-malformed", many(2000, lambda n: headers(n, *head(("connection", "close")))), flood, why="CVE-2025-8671, by malformed heads")
add("flood-continuation", frame(HEADERS, END_STREAM, 1, whole) + frame(CONTINUATION, 0, 1, literal("x-a", "a" * 1000)) * 5000, flood, why="CVE-2024-27316 and others, CERT VU#421644")
add("flood-continuation-empty", frame(HEADERS, END_STREAM, 1, whole) + frame(CONTINUATION, 0, 1) * 50_000, flood, why="CVE-2019-9518, CERT VU#421644")
add("flood-empty-data", headers(1, *head(method="POST"), end=False) + frame(DATA, 0, 1) * 50_000, flood, why="CVE-2019-9518")
add("flood-settings", settings((4, 65_535)) * 10_000, flood, why="CVE-2019-9515")
add("flood-ping", frame(PING, 0, 0, b"12345678") * 10_000, flood, why="CVE-2019-9512")
add("flood-priority", frame(PRIORITY, 0, 1, b"\0\0\0\x03\x10") * 50_000, flood, why="CVE-2019-9513")
add("flood-window-update", frame(WINDOW_UPDATE, 0, 0, number(1)) * 50_000, flood, why="CVE-2019-9511-like")
add("flood-unknown", frame(0x42, 0, 0, b"x" * 100) * 20_000, flood, why="RFC 9113 10.5")
add("flood-reset-idle", get(path="/maybe") + frame(RST_STREAM, 0, 1, number(CANCEL)) * 20_000, Contained((ENHANCE_YOUR_CALM, PROTOCOL_ERROR, STREAM_CLOSED)), why="RFC 9113 10.5", recorder_only=True)
add("flood-empty-fields", frame(HEADERS, END_STREAM, 1, whole) + frame(CONTINUATION, 0, 1, literal("", "") * 5000) * 50, flood, why="CVE-2019-9516")
add("flood-streams", many(500, lambda n: headers(n, *head(method="POST", path="/maybe"), end=False)), Contained((ENHANCE_YOUR_CALM, PROTOCOL_ERROR, REFUSED_STREAM)), why="RFC 9113 5.1.2: beyond 100 streams REFUSED_STREAM", recorder_only=True)

# Extended CONNECT
def connect(*fields: tuple[str, str], **pseudo: str | None) -> bytes:
    pseudo = {"method": "CONNECT", "path": "/switch", **pseudo}
    protocol = pseudo.pop("protocol", "websocket")
    first = [] if protocol is None else [(":protocol", protocol)]
    made = head(**pseudo)
    return headers(1, *made, *first, ("sec-websocket-version", "13"), *fields, end=False)


extended = "RFC 8441 4, 5"
TUNNEL = Request(target="/switch", fields=(("connection", "upgrade"), ("sec-websocket-version", "13"), ("upgrade", "websocket")))
add("connect-websocket", connect() + data(1, b"ping", end=False), TUNNEL, why=extended, recorder_only=True)
add("connect-websocket-cookie", connect(("cookie", "a=b"), ("cookie", "c=d")) + data(1, b"ping", end=False), Request(target="/switch", fields=(("connection", "upgrade"), ("cookie", "a=b; c=d"), ("sec-websocket-version", "13"), ("upgrade", "websocket"))), why=extended, recorder_only=True)
add("connect-websocket-refused", connect(path="/"), Request(fields=(("connection", "upgrade"), ("sec-websocket-version", "13"), ("upgrade", "websocket"))), why="RFC 8441 5: an answer that is no 101 is the answer", recorder_only=True)
NOT_SERVED = Malformed((PROTOCOL_ERROR, REFUSED_STREAM, CANCEL), (400, 405, 501))
for name, bad in {
    "other-protocol": connect(protocol="connect-udp"), "protocol-h2c": connect(protocol="h2c"), "protocol-empty": connect(protocol=""), "protocol-crlf": connect(protocol="websocket\r\nx: y"),
    "no-path": connect(path=None), "no-scheme": connect(scheme=None), "protocol-twice": headers(1, *head(method="CONNECT", path="/switch"), (":protocol", "websocket"), (":protocol", "websocket"), end=False),
    "with-get": connect(method="GET"), "path-no-slash": connect(path="switch"), "with-upgrade": connect(("upgrade", "websocket")), "with-connection": connect(("connection", "upgrade")),
    "other-host": connect(("host", "evil.example")),
}.items():  # fmt: skip
    add(f"connect-{name}", bad, NOT_SERVED, why=extended)
add("connect-unknown-host", connect(authority="nobody.localhost"), Answered(404, "project_not_found"), why=extended)

CASES = T.cases
