"""Fields: which go on, which end here, which are ours to say."""

from .case import Refused, Request, Table, get, head, post

T = Table()
add = T.add

# What goes on as it is
for name, (line, field) in {
    "cookie": ("Cookie: a=b; c=d", ("cookie", "a=b; c=d")),
    "authorization": ("Authorization: Bearer x", ("authorization", "Bearer x")),
    "accept-encoding": ("Accept-Encoding: gzip, br", ("accept-encoding", "gzip, br")),
    "range": ("Range: bytes=0-1,5-", ("range", "bytes=0-1,5-")),
    "range-nonsense": ("Range: bytes=9-1", ("range", "bytes=9-1")),
    "if-match": ('If-Match: "a", W/"b"', ("if-match", '"a", W/"b"')),
    "if-none-match": ("If-None-Match: *", ("if-none-match", "*")),
    "if-modified-since": ("If-Modified-Since: Sat, 29 Oct 1994 19:43:31 GMT", ("if-modified-since", "Sat, 29 Oct 1994 19:43:31 GMT")),
    "if-range": ('If-Range: "a"', ("if-range", '"a"')),
    "origin": ("Origin: https://a.example", ("origin", "https://a.example")),
    "max-forwards": ("Max-Forwards: 3", ("max-forwards", "3")),
    "via": ("Via: 1.1 a", ("via", "1.1 a")),
    "content-encoding": ("Content-Encoding: gzip", ("content-encoding", "gzip")),
    "empty-value": ("X-Empty:", ("x-empty", "")),
    "blank-value": ("X-Blank: \t ", ("x-blank", "")),
    "white-space-around": ("X-A: \t a b \t ", ("x-a", "a b")),
    "inner-tab": ("X-A: a\tb", ("x-a", "a\tb")),
    "obs-text": ("X-A: \xe4\xff\x80", ("x-a", "\xe4\xff\x80")),
    "colon-in-value": ("X-A: b: c", ("x-a", "b: c")),
    "all-token-bytes": ("!#$%&'*+-.^`|~0aZ: 1", ("!#$%&'*+-.^`|~0az", "1")),
    "underscore": ("X_A: 1", ("x_a", "1")),
    "long-value": ("X-A: " + "a" * 30_000, ("x-a", "a" * 30_000)),
    "long-name": ("X-" + "a" * 200 + ": 1", ("x-" + "a" * 200, "1")),
}.items():
    add(f"field-{name}", get(line), Request(fields=(field,)), why="RFC 9110 5.5, 7.6: end-to-end fields go on")
add("field-repeated", get("X-A: 1", "X-B: 2", "x-a: 3"), Request(fields=(("x-a", "1"), ("x-a", "3"), ("x-b", "2"))), why="RFC 9110 5.3: the order of one name's values stays")
add("field-cookies-two-lines", get("Cookie: a=b", "Cookie: c=d"), Request(fields=(("cookie", "a=b"), ("cookie", "c=d"))), why="RFC 6265 5.4: odd, but one meaning")
add("field-hundred", get(*(f"X-{number}: {number}" for number in range(99))), Request(fields=tuple((f"x-{number}", str(number)) for number in range(99))), why="100 with Host: the limit")
add("field-hundred-and-one", get(*(f"X-{number}: {number}" for number in range(100))), Refused((431,)), why="RFC 6585 5")
add("field-ten-thousand", get(*["X-A: 1"] * 10_000), Refused((431,)), why="RFC 6585 5; bounded memory")
add("field-64-kib", get("X-A: " + "a" * 65_536), Refused((431,)), why="RFC 6585 5")
add("field-name-64-kib", get("a" * 65_600 + ": 1"), Refused((400, 431)), why="RFC 6585 5")
add("field-megabyte-no-end", b"GET / HTTP/1.1\r\nHost: app.localhost\r\nX-A: " + b"a" * 1_000_000, Refused((431,)), why="bounded memory", smuggles=False)

# What is malformed
for name, line in {
    "no-colon": "X-A",
    "no-name": ": 1",
    "only-colon": ":",
    "space-before-colon": "X-A : 1",
    "tab-before-colon": "X-A\t: 1",
    "space-in-name": "X A: 1",
    "at-in-name": "X@A: 1",
    "slash-in-name": "X/A: 1",
    "brackets-in-name": "X[A]: 1",
    "quote-in-name": '"X": 1',
    "obs-text-in-name": "X-\xe4: 1",
    "nul-in-name": "X-\x00A: 1",
    "del-in-name": "X-\x7fA: 1",
    "nul-in-value": "X-A: a\x00b",
    "soh-in-value": "X-A: a\x01b",
    "vtab-in-value": "X-A: a\x0bb",
    "form-feed-in-value": "X-A: a\x0cb",
    "escape-in-value": "X-A: a\x1bb",
    "del-in-value": "X-A: a\x7fb",
    "bare-cr-in-value": "X-A: a\rX-B: b",
    "bare-cr-at-end": "X-A: a\r",
    "folded": "X-A: a\r\n b",
    "folded-tab": "X-A: a\r\n\tb",
    "folded-empty": "X-A: a\r\n \r\nX-B: b",
    "leading-space": " X-A: a",
    "request-line": "GET /smuggled HTTP/1.1",
}.items():
    add(f"field-{name}", get(line), Refused(), why="RFC 9110 5.1, 5.5; RFC 9112 5.1, 5.2, 2.2")

# One hop only
def hop(name: str, *lines: str, keeps: tuple[tuple[str, str], ...] = (), why: str = "RFC 9110 7.6.1") -> None:
    add(f"hop-{name}", get(*lines), Request(fields=keeps), why=why)


hop("connection-keep-alive", "Connection: keep-alive")
hop("connection-nominates", "Connection: X-Hop, x-other", "X-Hop: 1", "X-Other: 2", "X-Stays: 3", keeps=(("x-stays", "3"),))
hop("connection-nominates-two-lines", "Connection: X-Hop", "X-Hop: 1", "Connection: X-Other", "X-Other: 2")
hop("connection-nominates-after", "X-Hop: 1", "Connection: x-hop")
hop("connection-nominates-repeated", "X-Hop: 1", "X-Hop: 2", "Connection: x-hop")
hop("connection-nominates-cookie", "Connection: Cookie", "Cookie: a=b")
hop("connection-nominates-authorization", "Connection: Authorization", "Authorization: Bearer x")
hop("connection-nominates-forwarded", "Connection: X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto, Forwarded, X-Request-Id, Traceparent", why="what ingress says is added after (Nathan Davison: hop-by-hop abuse)")
hop("connection-empty-elements", "Connection: , ,keep-alive,", why="RFC 9110 5.6.1: empty elements")
hop("connection-nominates-absent", "Connection: x-nothing")
for name, line, why in [
    ("host", "Connection: Host", "a request without its Host"),
    ("content-length", "Connection: Content-Length", "a request without its frame"),
    ("transfer-encoding", "Connection: Transfer-Encoding", "a request without its frame"),
    ("host-in-list", "Connection: close, HOST", "a request without its Host"),
    ("no-token", "Connection: a b", "RFC 9110 7.6.1: tokens"),
    ("quoted", 'Connection: "close"', "RFC 9110 7.6.1: tokens"),
    ("slash", "Connection: x/y", "RFC 9110 7.6.1: tokens"),
]:
    add(f"hop-connection-{name}", get(line), Refused((400,), "invalid_request"), why=why)
hop("keep-alive", "Keep-Alive: timeout=5, max=100")
hop("proxy-connection", "Proxy-Connection: keep-alive", why="RFC 9112 C.2.2")
hop("proxy-authorization", "Proxy-Authorization: Basic x", why="RFC 9110 11.7.2")
hop("proxy-authenticate", "Proxy-Authenticate: Basic", why="RFC 9110 11.7.1")
hop("proxy", "Proxy: http://evil.example/", why="CVE-2016-5385, httpoxy")
hop("te-gzip", "TE: gzip")
hop("te-trailers", "TE: trailers", "Connection: te", keeps=(("connection", "te"), ("te", "trailers")), why="RFC 9110 10.1.4")
hop("te-trailers-among-others", "TE: gzip;q=0.5, Trailers", "Connection: TE", keeps=(("connection", "te"), ("te", "trailers")), why="RFC 9110 10.1.4")
hop("upgrade-without-connection", "Upgrade: websocket", why="RFC 9110 7.8: Upgrade is named in Connection")
hop("connection-upgrade-alone", "Connection: upgrade", why="RFC 9110 7.8")
hop("upgrade-h2c", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA", why="h2c smuggling (Bishop Fox, 2020); RFC 9113 3.1 has no such upgrade any more")
hop("upgrade-h2c-not-nominated", "Connection: Upgrade", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA", why="h2c smuggling")
hop("upgrade-h2c-among-others", "Connection: upgrade", "Upgrade: websocket, h2c", why="h2c smuggling")
hop("upgrade-h2c-second-line", "Connection: upgrade", "Upgrade: websocket", "Upgrade: h2c", why="h2c smuggling")
hop("upgrade-h2c-case", "Connection: upgrade", "Upgrade: H2C", why="h2c smuggling")
hop("upgrade-h2", "Connection: upgrade", "Upgrade: h2")
hop("upgrade-http-2.0", "Connection: upgrade", "Upgrade: HTTP/2.0")
hop("upgrade-tls", "Connection: upgrade", "Upgrade: TLS/1.2", why="RFC 2817 is not served")
hop("upgrade-no-token", "Connection: upgrade", "Upgrade: web socket")
hop("upgrade-empty", "Connection: upgrade", "Upgrade:")
hop("http2-settings", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA", why="RFC 7540 3.2.1: of a hop")
add("hop-upgrade-http10", head("GET / HTTP/1.0", "Connection: upgrade", "Upgrade: websocket"), Request(), why="RFC 9110 7.8: ignored in 1.0", closes=True)
add("hop-upgrade-with-body", post("Connection: upgrade", "Upgrade: custom", "Content-Length: 5", body=b"hello"), Request("POST", body=b"hello"), why="a body and an upgrade: the body is read, the upgrade is not taken")
add("hop-upgrade-websocket-post", post("Connection: upgrade", "Upgrade: websocket", "Content-Length: 0"), Request("POST"), why="RFC 6455 4.1: GET")

# Twins
for name, line in {
    "x_forwarded_for": "X_Forwarded_For: 1.2.3.4",
    "x-forwarded_for": "X-Forwarded_For: 1.2.3.4",
    "x_forwarded_user": "X_Forwarded_User: admin",
    "x_real_ip": "X_Real_Ip: 1.2.3.4",
    "x_request_id": "X_Request_Id: mine",
    "content_length": "Content_Length: 44",
    "transfer_encoding": "Transfer_Encoding: chunked",
    "keep_alive": "Keep_Alive: 5",
    "proxy_authorization": "Proxy_Authorization: Basic x",
}.items():
    add(f"twin-{name}", get(line), Request(), why="CGI and WSGI read _ as - (Django, 2015: CVE-2015-0219)")
add("twin-beside-its-field", get("X-User: me", "X_User: admin"), Request(fields=(("x-user", "me"),)), why="CVE-2015-0219")
add("twin-before-its-field", get("X_User: admin", "X-User: me"), Request(fields=(("x-user", "me"),)), why="CVE-2015-0219")

# Claims
for name in [
    "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-User",
    "X-Forwarded-Prefix", "X-Forwarded-Server", "X-Forwarded-Ssl", "X-Real-IP", "X-Client-IP", "True-Client-IP",
    "X-Cluster-Client-IP", "Client-IP", "Forwarded", "X-Request-ID",
]:  # fmt: skip
    add(f"claim-{name.lower()}", get(f"{name}: evil"), Request(), why="RFC 7239 8.1: a stranger's claims go")
add("claim-twice", get("X-Forwarded-For: 1.2.3.4", "X-Forwarded-For: 5.6.7.8", "x-forwarded-for: 9.9.9.9"), Request(), why="RFC 7239 8.1")
add("claim-traceparent-invalid", get("Traceparent: 00-evil", "Tracestate: a=b"), Request(), why="W3C Trace Context 4.3: start anew")
add("claim-traceparent-twice", get("Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4737-00f067aa0ba902b7-01"), Request(), why="W3C Trace Context 4.3")
add("claim-tracestate-alone", get("Tracestate: a=b"), Request(), why="W3C Trace Context 3.3.1")

# Expectations
add("expect-continue", post("Expect: 100-continue", "Content-Length: 5", body=b"hello"), Request("POST", body=b"hello", fields=(("expect", "100-continue"),)), why="RFC 9110 10.1.1: the origin decides")
add("expect-continue-case", post("Expect: 100-Continue", "Content-Length: 5", body=b"hello"), Request("POST", body=b"hello", fields=(("expect", "100-Continue"),)), why="RFC 9110 10.1.1: case-insensitive")
add("expect-continue-no-body", get("Expect: 100-continue"), Request(), why="RFC 9110 10.1.1")
add("expect-continue-http10", head("POST / HTTP/1.0", "Expect: 100-continue", "Content-Length: 5") + b"hello", Request("POST", body=b"hello"), why="RFC 9110 10.1.1: ignored in 1.0", closes=True)
for name, value in {"unknown": "magic", "list": "100-continue, magic", "parameter": "100-continue;a=b", "200-ok": "200-ok"}.items():
    add(f"expect-{name}", post(f"Expect: {value}", "Content-Length: 5", body=b"hello"), Refused((417,), "expectation_failed"), why="RFC 9110 10.1.1", smuggles=False)
add("expect-empty", get("Expect:"), Refused((417,), "expectation_failed"), why="RFC 9110 10.1.1")

CASES = T.cases
