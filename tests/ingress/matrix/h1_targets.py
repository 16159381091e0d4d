"""Request lines: methods, targets, versions; and what is no HTTP/1 at all."""

from .case import Answered, Dropped, Refused, Request, Table, get, head

T = Table()
add = T.add

# Methods
for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "M-SEARCH", "PURGE", "QUERY", "get", "gEt", "X" * 40, "!#$%&'*+-.^_`|~0"]:
    add(f"method-{method if len(method) < 20 else 'long' if method[0] == 'X' else 'all-token-bytes'}", head(f"{method} / HTTP/1.1"), Request(method), why="RFC 9110 9.1: any token, case and all")
add("method-head", head("HEAD / HTTP/1.1"), Request("HEAD"), why="RFC 9110 9.3.2")
for method in ["TRACE", "TRACK", "CONNECT"]:
    target = "app.localhost:80" if method == "CONNECT" else "/"
    host = "Host: app.localhost:80" if method == "CONNECT" else "Host: app.localhost"
    add(f"method-{method.lower()}-refused", head(f"{method} {target} HTTP/1.1", host=host), Refused((405,), "method_not_allowed"), why="RFC 9110 9.3.8, 9.3.6: not served (cross-site tracing; tunnels)")
add("method-connect-with-path", head("CONNECT / HTTP/1.1"), Refused((400, 405)), why="RFC 9112 3.2.3")
add("method-trace-lower-case", head("trace / HTTP/1.1"), Refused((405,), "method_not_allowed"), why="some apps fold case: as TRACK, in any case")
for name, line in {
    "empty": " / HTTP/1.1",
    "bracket": "GE(T / HTTP/1.1",
    "colon": "GET: / HTTP/1.1",
    "nul": "GE\x00T / HTTP/1.1",
    "0xff": "G\xffT / HTTP/1.1",
    "comma": "GET,POST / HTTP/1.1",
    "quoted": '"GET" / HTTP/1.1',
}.items():
    add(f"method-{name}", head(line), Refused(), why="RFC 9110 5.6.2: a method is a token")
add("method-huge", head("X" * 70_000 + " / HTTP/1.1"), Refused((400, 414, 431, 501)), why="bounded memory")

# Space and line ends in the request line
for name, line in {
    "two-spaces-before-target": "GET  / HTTP/1.1",
    "two-spaces-before-version": "GET /  HTTP/1.1",
    "tab": "GET\t/\tHTTP/1.1",
    "vtab": "GET\x0b/ HTTP/1.1",
    "space-after-version": "GET / HTTP/1.1 ",
    "space-before-method": " GET / HTTP/1.1",
    "bare-cr": "GET / HTTP/1.1\rX: y",
    "bare-cr-as-space": "GET /\rHTTP/1.1",
    "nul-after": "GET / HTTP/1.1\x00",
    "four-words": "GET / x HTTP/1.1",
}.items():
    add(f"line-{name}", head(line), Refused(), why="RFC 9112 3: single SP, nothing else")
add("line-empty-line-before", b"\r\n" + get(), Request(), why="RFC 9112 2.2: at least one empty line is passed over")
add("line-two-requests-empty-line-between", get() + b"\r\n" + get(target="/second"), Request(), Request(target="/second"), why="RFC 9112 2.2")
add("line-lf-only", b"GET / HTTP/1.1\nHost: app.localhost\nX-A: 1\n\n", Request(fields=(("x-a", "1"),)), why="RFC 9112 2.2: may be read; CRLF goes on")
add("line-lf-and-crlf", b"GET / HTTP/1.1\r\nHost: app.localhost\nX-A: 1\r\n\n", Request(fields=(("x-a", "1"),)), why="RFC 9112 2.2")
add("line-cr-cr-lf", b"GET / HTTP/1.1\r\r\nHost: app.localhost\r\n\r\n", Refused(), why="RFC 9112 2.2: bare CR")

# Versions
add("version-1.0", head("GET / HTTP/1.0"), Request(), why="RFC 9112 9.3: 1.0 closes", closes=True)
add("version-1.0-keep-alive", head("GET / HTTP/1.0", "Connection: keep-alive"), Request(), why="RFC 9112 9.3: kept where asked for")
add("version-1.0-no-host", b"GET / HTTP/1.0\r\n\r\n", Refused((400,), "invalid_hostname"), why="nothing to route by")
add("version-0.9", b"GET /\r\n", Refused(), why="RFC 9112: no 0.9", smuggles=False)
add("version-0.9-then-head", b"GET /\r\nHost: app.localhost\r\n\r\n", Refused(), why="RFC 9112 3")
for version in ["HTTP/1.2", "HTTP/2.0", "HTTP/3.0", "HTTP/0.9", "HTTP/11.1", "HTTP/1.10", "HTTP/1", "HTTP/1.", "HTTP/.1", "HTTP/1,1", "HTTP/1.1.1", "HTTP/+1.1", "http/1.1", "Http/1.1", "HTTP /1.1", "HTP/1.1", "HTTP/1.x", "ICAP/1.0", ""]:
    add(f"version-{version or 'empty'}", head(f"GET / {version}"), Refused((400, 505)), why="RFC 9112 2.3: HTTP/1.0 or HTTP/1.1, in capitals")
add("version-h2-preface-after-request", get() + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Request(), Dropped(), why="RFC 9113 3.4: a preface begins a connection", smuggles=False)
add("version-h2-preface-with-host", b"PRI * HTTP/2.0\r\nHost: app.localhost\r\n\r\n", Dropped(), why="RFC 9113 3.4: almost the preface")

# Targets: what goes on byte by byte
for name, target in {
    "root": "/",
    "query": "/a?b=c&d=e",
    "empty-query": "/?",
    "two-question-marks": "/a??b?",
    "double-slash": "//",
    "double-slash-inside": "/a//b",
    "double-slash-host": "//evil.example/a",
    "dot": "/./a",
    "dot-dot": "/a/../b",
    "dot-dot-beyond-root": "/../../etc/passwd",
    "dot-dot-encoded": "/%2e%2e/%2E%2E/b",
    "dot-dot-semicolon": "/a/..;/b",
    "slash-encoded": "/a%2Fb%2fc",
    "backslash-encoded": "/a%5Cb",
    "double-encoded": "/%252e%252e/",
    "space-encoded": "/a%20b",
    "plus": "/a+b?c+d",
    "crlf-encoded": "/a%0d%0aX:%20y",
    "hash-encoded": "/a%23b",
    "question-encoded": "/a%3Fb",
    "semicolon": "/a;v=1/b;c",
    "sub-delims": "/!$&'()*+,;=:@-._~",
    "colon-first": "/:a",
    "at": "/@user",
    "brackets-in-query": "/?a[]=1&b[c]=2",
    "braces-and-pipe-in-query": "/?a={b}|c",
    "quote-in-query": "/?a='b'",
    "utf8-encoded": "/%C3%A4",
    "iso-encoded": "/%E4",
    "overlong-utf8-encoded": "/%c0%ae%c0%ae/",
    "url-in-path": "/http://evil.example/",
    "url-in-query": "/?u=http://evil.example/#x".replace("#x", ""),
    "quote-in-path": '/"a"',
    "no-percent-hex-in-query": "/?a=100%",
    "long": "/" + "a" * 8000,
    "long-query": "/?" + "a=b&" * 4000,
}.items():
    add(f"target-{name}", get(target=target), Request(target=target), why="RFC 9112 3.2.1, RFC 9110 7.7: a proxy passes path and query on as they are")
for name, target in {
    "fragment": "/a#b",
    "fragment-empty": "/a#",
    "fragment-in-query": "/?a#b",
    "non-ascii": "/\xc3\xa4",
    "non-ascii-in-query": "/?\xff",
    "nul": "/\x00",
    "nul-encoded": "/a%00b",
    "control": "/\x01",
    "del": "/\x7f",
    "space": "/a b",
    "less-than": "/<a>",
    "backslash": "/a\\..\\b",
    "percent-not-hex": "/%zz",
    "percent-at-end": "/a%",
    "no-slash": "a",
    "empty": "",
    "only-query": "?a",
    "authority": "app.localhost:80",
    "host-only": "app.localhost",
    "asterisk": "*",
    "dot-slash": "./a",
    "backslash-first": "\\a",
    "percent-slash-first": "%2Fa",
}.items():
    add(f"target-{name}", get(target=target), Refused(), why="RFC 9112 3.2, RFC 3986 3.3: not a request target, or read in two ways")
add("target-too-long", get(target="/" + "a" * 70_000), Refused((414, 431)), why="RFC 9110 4.1: limit and say so")
add("target-asterisk-options", head("OPTIONS * HTTP/1.1"), Request("OPTIONS", "*"), why="RFC 9112 3.2.4")
add("target-asterisk-query", head("OPTIONS *?a HTTP/1.1"), Refused(), why="RFC 9112 3.2.4")
add("target-asterisk-more", head("OPTIONS */a HTTP/1.1"), Refused(), why="RFC 9112 3.2.4")

# The absolute form
absolute = "RFC 9112 3.2.2: must be taken; it means what Host says, or nothing"
add("absolute", get(target="http://app.localhost/a?b"), Request(target="/a?b"), why=absolute)
add("absolute-no-path", get(target="http://app.localhost"), Request(), why=absolute)
add("absolute-only-query", get(target="http://app.localhost?a"), Request(target="/?a"), why=absolute)
add("absolute-upper-case", get(target="HTTP://APP.LocalHost/a"), Request(target="/a"), why=absolute)
add("absolute-https", get(target="https://app.localhost/a"), Request(target="/a"), why=absolute)
add("absolute-double-slash", get(target="http://app.localhost//a"), Request(target="//a"), why=absolute)
add("absolute-options-asterisk", head("OPTIONS http://app.localhost HTTP/1.1"), Request("OPTIONS", "*"), why="RFC 9112 3.2.4: no path and OPTIONS is the asterisk form")
for name, target in {
    "other-host": "http://evil.localhost/",
    "other-port": "http://app.localhost:81/",
    "subdomain": "http://app.localhost.evil.example/",
    "userinfo": "http://user@app.localhost/",
    "userinfo-host": "http://app.localhost@evil.example/",
    "userinfo-empty": "http://@app.localhost/",
    "other-scheme": "ftp://app.localhost/",
    "file-scheme": "file:///etc/passwd",
    "no-slashes": "http:app.localhost/",
    "one-slash": "http:/app.localhost/",
    "no-host": "http:///a",
    "port-zero": "http://app.localhost:0/",
    "port-large": "http://app.localhost:65536/",
    "fragment": "http://app.localhost/#a",
    "backslash": "http://app.localhost\\@evil.example/",
    "javascript": "javascript:alert(1)",
}.items():
    add(f"absolute-{name}", get(target=target), Refused(), why=absolute)
add("absolute-no-host-field", head("GET http://app.localhost/ HTTP/1.1", host=None), Refused(), why="RFC 9112 3.2: a 1.1 request has a Host field")
add("absolute-foreign-same-host", head("GET http://evil.example/ HTTP/1.1", host="Host: evil.example"), Answered(404, "project_not_found"), why="consistent, and nobody's")

# What is no HTTP
add("proxy-v1-line", b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\n" + get(), Refused(), why="PROXY protocol 2.1, on a listener without it")
add("proxy-v2-header", b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x04\xd2\x00\x50" + get(), Dropped(), why="PROXY protocol 2.2")
add("tls-client-hello", bytes.fromhex("16030100a5010000a10303") + bytes(range(32)) + b"\x00" * 123, Dropped(), why="TLS on a plain listener", smuggles=False)
add("ssh", b"SSH-2.0-OpenSSH_9.2\r\n", Dropped(), why="another protocol")
add("smtp", b"EHLO app.localhost\r\nMAIL FROM:<a@b>\r\n", Dropped(), why="another protocol (cross-protocol scripting)")
add("nothing-but-line-ends", b"\r\n" * 40_000, Dropped(), why="RFC 9112 2.2: some empty lines are passed over, not all", smuggles=False)
add("binary", bytes(range(256)), Dropped(), why="no HTTP", smuggles=False)

CASES = T.cases
