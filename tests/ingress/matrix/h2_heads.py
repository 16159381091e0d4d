"""Heads of HTTP/2: pseudo-header fields, names, values, lengths, trailers."""

from kit.frames import CANCEL, COMPRESSION_ERROR, END_HEADERS, END_STREAM, HEADERS, NO_ERROR, PROTOCOL_ERROR, REFUSED_STREAM, block, data, frame, headers, integer

from .case import Answered, Request
from .h2_case import LIMIT, Malformed, Table, get, head, in_frames, post

T = Table()
add = T.add

BAD = Malformed()
HOST_BAD = Malformed(statuses=(400,))
UNKNOWN = Answered(404, "project_not_found")

# Good ones
add("get", get(), Request(), why="RFC 9113 8.3.1")
add("head", get(method="HEAD"), Request("HEAD"), why="RFC 9113 8.1")
add("post", post(b"hello"), Request("POST", body=b"hello"), why="RFC 9113 8.1")
add("post-length", post(b"hello", ("content-length", "5")), Request("POST", body=b"hello"), why="RFC 9113 8.1.1")
add("post-empty", post(b""), Request("POST"), why="RFC 9113 8.1: an empty DATA ends it")
add("post-length-zero", post(b"", ("content-length", "0")), Request("POST"), why="RFC 9113 8.1.1")
add("post-frames", headers(1, *head(method="POST"), end=False) + b"".join(data(1, b"%d" % n, end=False) for n in range(10)) + data(1), Request("POST", body=b"0123456789"), why="RFC 9113 6.1")
add("post-64-kib", post(b"x" * 65_535), Request("POST", body=b"x" * 65_535), why="RFC 9113 6.9.2: the first window")
add("get-with-body", post(b"hello", method="GET"), Request(body=b"hello"), why="RFC 9110 9.3.1")
add("options-asterisk", get(method="OPTIONS", path="*"), Request("OPTIONS", "*"), why="RFC 9113 8.3.1")
add("method-token", get(method="M-SEARCH"), Request("M-SEARCH"), why="RFC 9110 9.1")
add("scheme-https-on-plain", get(scheme="https"), Request(), why="RFC 9113 8.3.1: what the client says of the scheme is not believed")
add("two-streams", get(path="/1") + get(path="/2", stream=3), Request(target="/1"), Request(target="/2"), why="RFC 9113 5.1.2")
add("ten-streams", b"".join(get(path=f"/{n}", stream=2 * n + 1) for n in range(10)), *(Request(target=f"/{n}") for n in range(10)), why="RFC 9113 5.1.2")
add("cookie-crumbs", get(("cookie", "a=b"), ("cookie", "c=d"), ("cookie", "e=f")), Request(fields=(("cookie", "a=b; c=d; e=f"),)), why="RFC 9113 8.2.3: joined for HTTP/1")
add("repeated-field", get(("x-a", "1"), ("x-b", "2"), ("x-a", "3")), Request(fields=(("x-a", "1"), ("x-a", "3"), ("x-b", "2"))), why="RFC 9110 5.3")
add("te-trailers", get(("te", "trailers")), Request(fields=(("connection", "te"), ("te", "trailers"))), why="RFC 9113 8.2.2")
add("obs-text", get(("x-a", "\xe4\xff")), Request(fields=(("x-a", "\xe4\xff"),)), why="RFC 9110 5.5")
add("empty-value", get(("x-a", "")), Request(fields=(("x-a", ""),)), why="RFC 9110 5.5")
add("hints", get(path="/hints"), Request(target="/hints"), why="RFC 9113 8.1: 1xx go on", recorder_only=True)
add("early-answer", headers(1, *head(method="POST", path="/early"), end=False) + data(1, b"x" * 100, end=False), Request("POST", "/early", status=413), why="RFC 9113 8.1: an answer before the request's end", recorder_only=True)
add("expect-continue", post(b"hello", ("expect", "100-continue"), ("content-length", "5")), Request("POST", body=b"hello", fields=(("expect", "100-continue"),)), why="RFC 9110 10.1.1: the origin decides")
add("expect-unknown", get(("expect", "magic")), Answered(417, "expectation_failed"), why="RFC 9110 10.1.1")

# Pseudo-header fields
for name, fields in {
    "missing-method": head(method=None),
    "missing-scheme": head(scheme=None),
    "missing-path": head(path=None),
    "none": [("x-a", "1")],
    "unknown": head() + [(":foo", "bar")],
    "status": head() + [(":status", "200")],
    "after-field": [*head(path=None), ("x-a", "1"), (":path", "/")],
    "method-after-field": [("x-a", "1"), *head()],
    "upper-case": [(":Method", "GET"), *head(method=None)],
    "twice-method": [*head(), (":method", "POST")],
    "twice-scheme": [*head(), (":scheme", "https")],
    "twice-path": [*head(), (":path", "/evil")],
    "twice-authority": [*head(), (":authority", "evil.example")],
    "twice-same": [*head(), (":path", "/")],
    "empty-method": head(method=""),
    "empty-scheme": head(scheme=""),
    "empty-path": head(path=""),
    "protocol-without-connect": head() + [(":protocol", "websocket")],
    "space-after-colon": [(": method", "GET"), *head()],
}.items():
    add(f"pseudo-{name}", headers(1, *fields), BAD, why="RFC 9113 8.3, 8.1.1")
for name, method in {"space": "GET /evil", "crlf": "GET / HTTP/1.1\r\nHost: evil", "lf": "GET\n", "nul": "GET\x00", "bracket": "GE(T", "0xff": "G\xffT"}.items():
    add(f"method-{name}", get(method=method), BAD, why="RFC 9110 9.1: a token; request splitting (James Kettle, HTTP/2: the sequel)")
for method in ["TRACE", "TRACK", "trace"]:
    add(f"method-{method}", get(method=method), Malformed(statuses=(405,)), why="RFC 9110 9.3.8: not served")
add("method-connect", headers(1, (":method", "CONNECT"), (":authority", "app.localhost:80"), end=False), Malformed((PROTOCOL_ERROR, REFUSED_STREAM, CANCEL, NO_ERROR), (405, 400)), why="RFC 9113 8.5: no tunnels")
add("method-connect-with-path", get(method="CONNECT"), Malformed(statuses=(400, 405)), why="RFC 9113 8.5")
for name, scheme in {"ftp": "ftp", "file": "file", "url": "http://evil.example/?", "crlf": "http\r\nx: y", "space": "ht tp", "nul": "http\x00"}.items():
    add(f"scheme-{name}", get(scheme=scheme), BAD, why="RFC 9113 8.3.1; a scheme that becomes a URL (James Kettle)")

# Targets
for name, path in {
    "query": "/a?b=c", "double-slash": "//a", "dot-dot": "/a/../b", "encoded": "/%2e%2e/%2F", "semicolon": "/a;b", "colon": "/a:b@c",
    "empty-query": "/?", "url-inside": "/http://evil.example/",
}.items():  # fmt: skip
    add(f"path-{name}", get(path=path), Request(target=path), why="RFC 9113 8.3.1: as it is")
for name, path in {
    "asterisk-get": "*", "no-slash": "a", "absolute": "http://evil.example/", "only-query": "?a", "fragment": "/a#b", "space": "/a b",
    "http-line": "/ HTTP/1.1\r\nHost: evil", "lf": "/a\nb", "cr": "/a\rb", "nul": "/a\x00", "tab": "/a\tb", "del": "/\x7f", "non-ascii": "/\xc3\xa4",
    "backslash": "/a\\b", "nul-encoded": "/a%00", "percent": "/%zz", "authority": "@evil.example/", "dot": "./a",
}.items():  # fmt: skip
    add(f"path-{name}", get(path=path), BAD, why="RFC 9113 8.3.1, RFC 3986 3.3")
add("path-8000", get(path="/" + "a" * 8000), Request(target="/" + "a" * 8000), why="RFC 9110 4.1: at least 8000 bytes")
add("path-100000", in_frames(head(path="/" + "a" * 100_000)), Malformed(LIMIT, (414, 431)), why="RFC 9110 4.1: limit and say so")

# Hosts
for name, (authority, canonical) in {
    "upper-case": ("APP.localhost", "app.localhost"), "dot": ("app.localhost.", "app.localhost"), "port": ("app.localhost:8080", "app.localhost:8080"),
    "port-zeros": ("app.localhost:0080", "app.localhost:80"),
}.items():  # fmt: skip
    add(f"authority-{name}", get(authority=authority), Request(host=canonical), why="RFC 9110 4.2.3: one form")
add("authority-and-host-same", get(("host", "app.localhost")), Request(), why="RFC 9113 8.3.1: they may both stand")
add("authority-and-host-otherwise-written", get(("host", "APP.localhost.")), HOST_BAD, why="RFC 9113 8.3.1 lets it pass as the same entity; nobody writes it so, and one form is safer")
add("host-only", get(("host", "app.localhost"), authority=None), Request(), why="RFC 9113 8.3.1: from HTTP/1")
add("authority-none", get(authority=None), HOST_BAD, why="RFC 9113 8.3.1: nothing to route by")
for name, fields in {
    "differs": head(("host", "evil.example")), "differs-in-port": head(("host", "app.localhost:81")), "host-twice": head(("host", "app.localhost"), ("host", "app.localhost")),
    "host-twice-without-authority": head(("host", "app.localhost"), ("host", "evil.example"), authority=None), "host-empty": head(("host", "")), "host-second-differs": head(("host", "app.localhost"), ("host", "evil.example")),
}.items():  # fmt: skip
    add(f"authority-{name}", headers(1, *fields), HOST_BAD, why="RFC 9113 8.3.1: a Host of another entity is malformed")
for name, authority in {
    "empty": "", "userinfo": "user@app.localhost", "userinfo-evil": "app.localhost@evil.example", "path": "app.localhost/evil", "two-words": "app.localhost evil",
    "list": "app.localhost,evil", "crlf": "app.localhost\r\nx: y", "port-zero": "app.localhost:0", "port-65536": "app.localhost:65536", "non-ascii": "\xe4pp.localhost",
    "nul": "app.localhost\x00", "encoded": "%61pp.localhost", "scheme": "http://app.localhost", "dots": "app..localhost", "fragment": "app.localhost#a",
}.items():  # fmt: skip
    add(f"authority-{name}", get(authority=authority), HOST_BAD, why="RFC 3986 3.2.2, RFC 9113 8.3.1")
add("authority-unknown", get(authority="nobody.localhost"), UNKNOWN, why="no such project")

# Fields of a connection
for name, value in {
    "connection": "keep-alive", "keep-alive": "timeout=5", "proxy-connection": "keep-alive", "transfer-encoding": "chunked", "upgrade": "h2c", "te": "gzip",
}.items():  # fmt: skip
    add(f"connection-{name}", get((name, value)), BAD, why="RFC 9113 8.2.2: malformed")
add("connection-close", get(("connection", "close")), BAD, why="RFC 9113 8.2.2")
add("connection-nominates", get(("connection", "x-a"), ("x-a", "1")), BAD, why="RFC 9113 8.2.2")
add("connection-te-list", get(("te", "trailers, gzip")), BAD, why="RFC 9113 8.2.2: trailers and nothing else")
add("connection-transfer-encoding-smuggle", post(b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: app.localhost\r\n\r\n", ("transfer-encoding", "chunked")), BAD, why="H2.TE desync (James Kettle)")
add("connection-transfer-encoding-identity", post(b"hello", ("transfer-encoding", "identity")), BAD, why="RFC 9113 8.2.2")
add("connection-upgrade-websocket", get(("connection", "upgrade"), ("upgrade", "websocket")), BAD, why="RFC 9113 8.6")
add("connection-http2-settings", get(("http2-settings", "AAMAAABk")), Request(), why="of a hop: goes no further")
add("connection-proxy-authorization", get(("proxy-authorization", "Basic x")), Request(), why="RFC 9110 11.7.2: of a hop")

# Names and values
for name, field in {
    "upper-case": "X-A", "one-capital": "x-A", "space": "x a", "trailing-space": "x-a ", "colon": "x:a", "crlf": "x\r\nevil: y", "lf": "x\nb", "nul": "x\x00a",
    "non-ascii": "x-\xe4", "empty": "", "del": "x\x7f", "tab": "x\ta", "bracket": "x(a)", "http-line": "get / http/1.1\r\nhost",
}.items():  # fmt: skip
    add(f"name-{name}", get((field, "1")), BAD, why="RFC 9113 8.2.1: malformed")
for name, value in {
    "cr": "a\rb", "lf": "a\nb", "crlf": "a\r\nx: y", "nul": "a\x00b", "trailing-cr": "a\r", "leading-lf": "\na",
    "leading-space": " a", "trailing-space": "a ", "leading-tab": "\ta", "crlf-coding": "a\r\nTransfer-Encoding: chunked", "soh": "a\x01", "del": "a\x7f",
}.items():  # fmt: skip
    add(f"value-{name}", get(("x-a", value)), BAD, why="RFC 9113 8.2.1: malformed; request splitting (James Kettle)")
for name, line in {"x-forwarded-for": "1.2.3.4", "x-forwarded-host": "evil", "x-forwarded-proto": "https", "forwarded": "for=evil", "x-real-ip": "1.2.3.4", "x-request-id": "mine", "x_forwarded_for": "1.2.3.4", "proxy": "evil", "content_length": "44", "transfer_encoding": "chunked"}.items():
    add(f"claim-{name}", get((name, line)), Request(), why="RFC 7239 8.1: a stranger's claims go")

# Lengths
length = "RFC 9113 8.1.1: DATA and content-length agree, or it is malformed; H2.CL desync"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: app.localhost\r\n\r\n"
add("length-more-data", post(b"hello!", ("content-length", "5")), BAD, why=length)
add("length-less-data", post(b"hell", ("content-length", "5")), BAD, why=length)
add("length-zero-with-data", post(SMUGGLED, ("content-length", "0")), BAD, why=length)
add("length-no-data", headers(1, *head(("content-length", "5"), method="POST")), BAD, why=length)
add("length-empty-data", post(b"", ("content-length", "5")), BAD, why=length)
add("length-less-data-then-trailers", headers(1, *head(("content-length", "5"), method="POST"), end=False) + data(1, b"hell", end=False) + headers(1, ("x-sum", "1")), BAD, why=length)
for name, value in {"plus": "+5", "list": "5, 5", "hex": "0x5", "word": "five", "empty": "", "minus": "-5", "overflow": "18446744073709551621", "space": "5 5"}.items():
    add(f"length-{name}", post(b"hello", ("content-length", value)), BAD, why="RFC 9110 8.6: 1*DIGIT")
add("length-twice-different", post(b"hello", ("content-length", "5"), ("content-length", "6")), BAD, why="RFC 9110 8.6")
add("length-twice-same", post(b"hello", ("content-length", "5"), ("content-length", "5")), Malformed(), why="RFC 9110 8.6: refuse (or one; refused is what others do)")

# Trailers
def trailed(*trailers: tuple[str, str], declared: tuple[tuple[str, str], ...] = (("trailer", "x-sum"),)) -> bytes:
    return headers(1, *head(*declared, method="POST"), end=False) + data(1, b"hello", end=False) + headers(1, *trailers)


SUMMED = Request("POST", body=b"hello", trailers=(("x-sum", "1"),), fields=(("trailer", "x-sum"),))
add("trailer", trailed(("x-sum", "1")), SUMMED, why="RFC 9113 8.1")
for name in ["host", "content-length", "x-forwarded-for", "authorization", "cookie", "x-request-id", "te", "x_forwarded_for", "proxy"]:
    add(f"trailer-{name}", trailed((name, "trailers" if name == "te" else "5"), ("x-sum", "1")), SUMMED, why="RFC 9110 6.5.1: only a head may say it")
for name, fields in {
    "pseudo": [(":path", "/evil")], "status": [(":status", "200")], "pseudo-after": [("x-sum", "1"), (":method", "GET")], "upper-case": [("X-Sum", "1")],
    "transfer-encoding": [("transfer-encoding", "chunked")], "connection": [("connection", "close")], "crlf": [("x-sum", "1\r\nx: y")], "name-crlf": [("x\r\ny", "1")],
}.items():  # fmt: skip
    add(f"trailer-bad-{name}", trailed(*fields), BAD, why="RFC 9113 8.1, 8.2, 8.3: malformed")
add("trailer-without-end", headers(1, *head(method="POST"), end=False) + data(1, b"hello", end=False) + headers(1, ("x-sum", "1"), end=False), BAD, why="RFC 9113 8.1: a second head without END_STREAM")

# Sizes
add("size-fields-90", get(*((f"x-{n}", str(n)) for n in range(90))), Request(fields=tuple((f"x-{n}", str(n)) for n in range(90))), why="as HTTP/1")
add("size-fields-10000", in_frames(head(*[("x-a", "1")] * 10_000)), Malformed(LIMIT, (431,)), why="RFC 9113 10.5.1: 431, as HTTP/1")
add("size-value-30000", in_frames(head(("x-a", "a" * 30_000))), Request(fields=(("x-a", "a" * 30_000),)), why="as HTTP/1")
add("size-value-100000", in_frames(head(("x-a", "a" * 100_000))), Malformed(LIMIT, (431,)), why="RFC 9113 10.5.1")
#: A field of 4,000 bytes that goes into the dynamic table, then 10,000 times one byte that means it.
BOMB = block(*head()) + b"\x40\x01b" + integer(4000, 7, 0) + b"a" * 4000 + b"\xbe" * 10_000
add("size-hpack-bomb", frame(HEADERS, END_HEADERS | END_STREAM, 1, BOMB), Malformed((*LIMIT, COMPRESSION_ERROR), (431,)), why="RFC 7541 7.3: 14 KB that say 40 MB")

CASES = T.cases
