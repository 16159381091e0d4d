"""Hosts: one meaning for the name that is routed by."""

from .case import Answered, Refused, Request, Table, head

T = Table()
add = T.add


def host(line: str | None, *more: str) -> bytes:
    return head("GET / HTTP/1.1", *more, host=line)


NAME = Refused((400,), "invalid_hostname")
PORT = Refused((400,), "invalid_port")
UNKNOWN = Answered(404, "project_not_found")

for name, (line, canonical) in {
    "plain": ("Host: app.localhost", "app.localhost"),
    "lower-case-name": ("host: app.localhost", "app.localhost"),
    "upper-case-name": ("HOST: app.localhost", "app.localhost"),
    "upper-case": ("Host: APP.LocalHost", "app.localhost"),
    "trailing-dot": ("Host: app.localhost.", "app.localhost"),
    "port": ("Host: app.localhost:8080", "app.localhost:8080"),
    "port-leading-zeros": ("Host: app.localhost:0080", "app.localhost:80"),
    "port-largest": ("Host: app.localhost:65535", "app.localhost:65535"),
    "dot-and-port": ("Host: App.Localhost.:81", "app.localhost:81"),
    "no-space": ("Host:app.localhost", "app.localhost"),
    "tabs": ("Host:\t app.localhost\t ", "app.localhost"),
}.items():
    add(f"host-{name}", host(line), Request(host=canonical), why="RFC 9110 4.2.3, 7.2: one form")
for name, line in {
    "empty": "Host:",
    "blank": "Host: \t ",
    "dot": "Host: .",
    "leading-dot": "Host: .app.localhost",
    "two-dots": "Host: app..localhost",
    "two-trailing-dots": "Host: app.localhost..",
    "two-words": "Host: app.localhost evil.example",
    "list": "Host: app.localhost, evil.example",
    "list-same": "Host: app.localhost,app.localhost",
    "path": "Host: app.localhost/a",
    "query": "Host: app.localhost?a",
    "fragment": "Host: app.localhost#a",
    "scheme": "Host: http://app.localhost",
    "userinfo": "Host: user@app.localhost",
    "userinfo-password": "Host: user:password@app.localhost",
    "userinfo-evil": "Host: app.localhost@evil.example",
    "percent-encoded": "Host: %61pp.localhost",
    "percent-nul": "Host: app.localhost%00.evil.example",
    "non-ascii": "Host: \xc3\xa4pp.localhost",
    "full-width": "Host: \xef\xbd\x81pp.localhost",
    "inner-tab": "Host: app\t.localhost",
    "semicolon": "Host: app.localhost;a",
    "backslash": "Host: app.localhost\\a",
    "quote": 'Host: "app.localhost"',
    "comment": "Host: app.localhost (a)",
    "label-of-64": f"Host: {'a' * 64}.localhost",
    "longer-than-253": "Host: " + "a." * 124 + "localhost",
    "ipv6-open": "Host: [::1",
    "ipv6-close": "Host: ::1]",
    "ipv6-no-brackets": "Host: ::1",
    "ipv6-zone": "Host: [fe80::1%25eth0]",
    "ipv6-more": "Host: [::1]app.localhost",
    "ipvfuture": "Host: [v1.a]",
    "asterisk": "Host: *.localhost",
}.items():
    expected = PORT if name in {"scheme", "userinfo-password", "ipv6-close", "ipv6-no-brackets"} else NAME
    add(f"host-{name}", host(line), Refused(expected.status), why="RFC 3986 3.2.2, RFC 9112 3.2: an invalid Host is 400")
for name, port in {"zero": "0", "65536": "65536", "huge": "99999999999999999999", "empty": "", "minus": "-1", "plus": "+80", "hex": "0x50", "word": "http", "two": "80:80", "space": "80 80", "zeros": "000080"}.items():
    add(f"host-port-{name}", host(f"Host: app.localhost:{port}"), Refused((400,), None if name == "space" else "invalid_port"), why="RFC 3986 3.2.3; 1 to 65535")
add("host-missing", host(None), NAME, why="RFC 9112 3.2: no Host is 400")
add("host-twice-same", host("Host: app.localhost", "Host: app.localhost"), NAME, why="RFC 9112 3.2: two Hosts are 400")
add("host-twice-different", host("Host: app.localhost", "Host: evil.example"), NAME, why="RFC 9112 3.2")
add("host-twice-empty-first", host("Host:", "Host: app.localhost"), NAME, why="RFC 9112 3.2")
add("host-twice-case", host("Host: app.localhost", "hOST: evil.example"), NAME, why="RFC 9112 3.2")
add("host-space-before-colon", host("Host : app.localhost"), Refused(), why="RFC 9112 5.1")
add("host-leading-space", host(" Host: app.localhost"), Refused(), why="RFC 9112 5.2, 2.2: white space before the first field")
add("host-folded", host("Host: app.localhost\r\n .evil.example"), Refused(), why="RFC 9112 5.2")
add("host-folded-first", host("Host:\r\n app.localhost"), Refused(), why="RFC 9112 5.2")
add("host-nul", host("Host: app.localhost\x00.evil.example"), Refused(), why="RFC 9110 5.5")
add("host-bare-cr", host("Host: app.localhost\rX: y"), Refused(), why="RFC 9112 2.2")
add("host-vtab", host("Host: app.localhost\x0b"), Refused(), why="RFC 9110 5.5")
add("host-underscore-twin", host("Host: app.localhost", "Ho_st: evil.example"), Request(fields=(("ho_st", "evil.example"),)), why="no twin: Ho_st is no Host")
add("host-not-first", head("GET / HTTP/1.1", "X-A: 1", "Host: app.localhost", host=None), Request(fields=(("x-a", "1"),)), why="RFC 9110 5.3: order of names has no meaning")
add("host-unknown", host("Host: nobody.localhost"), UNKNOWN, why="no such project")
add("host-foreign", host("Host: evil.example"), UNKNOWN, why="no such host")
add("host-base", host("Host: localhost"), UNKNOWN, why="the base is nobody's")
add("host-suffix", host("Host: app.localhost.evil.example"), UNKNOWN, why="the name is compared whole")
add("host-prefix", host("Host: evilapp.localhost"), UNKNOWN, why="the name is compared whole")
add("host-ipv4", host("Host: 127.0.0.1"), UNKNOWN, why="an address is nobody's")
add("host-ipv6", host("Host: [::1]"), UNKNOWN, why="an address is nobody's")
add("host-ipv6-port", host("Host: [::1]:80"), UNKNOWN, why="an address is nobody's")
add("host-punycode-unknown", host("Host: xn--pp-uia.example"), UNKNOWN, why="RFC 5890: A-labels are names as others")
add("host-punycode-as-slug", host("Host: xn--pp-uia.localhost"), Answered(400, "invalid_hostname"), why="no slug has two hyphens in a row")
add("host-x-forwarded-host", host("Host: app.localhost", "X-Forwarded-Host: evil.example", "X-Host: evil.example"), Request(fields=(("x-host", "evil.example"),)), why="only Host routes; claims of strangers go")
add("host-forwarded", host("Host: app.localhost", "Forwarded: host=evil.example;for=1.2.3.4"), Request(), why="RFC 7239 8.1")
add("host-pseudo-authority", host("Host: app.localhost", ":authority: evil.example"), Refused(), why="RFC 9110 5.1: no field name")

CASES = T.cases
