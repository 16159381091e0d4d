"""Where a message ends: lengths, codings, chunks, trailers."""

from .case import Broken, Refused, Request, Table, get, head, post

T = Table()
add = T.add

HELLO = Request("POST", body=b"hello")
EMPTY = Request("POST")
CHUNKED = "Transfer-Encoding: chunked"
HELLO_CHUNKED = b"5\r\nhello\r\n0\r\n\r\n"
#: An unknown coding is 501 by RFC 9112, section 6.1; a malformed one 400.
CODING = Refused((400, 501))

# Content-Length
add("length", post("Content-Length: 5", body=b"hello"), HELLO, why="RFC 9112 6.2")
add("length-zero", post("Content-Length: 0"), EMPTY, why="RFC 9112 6.2")
add("length-absent", post(), EMPTY, why="RFC 9112 6.3: no length, no body")
add("length-get-with-body", get("Content-Length: 5") + b"hello", Request(body=b"hello"), why="RFC 9110 9.3.1: a body of GET is framed as any")
add("length-white-space-around", post("Content-Length: \t5 \t", body=b"hello"), HELLO, why="RFC 9112 5: OWS is no part of the value")
add("length-no-space", post("Content-Length:5", body=b"hello"), HELLO, why="RFC 9112 5: OWS is optional")
add("length-leading-zero", post("Content-Length: 05", body=b"hello"), HELLO, why="RFC 9110 8.6: 1*DIGIT; octal for some readers, so it goes on as 5")
add("length-twice-same", post("Content-Length: 5", "Content-Length: 5", body=b"hello"), HELLO, why="RFC 9112 6.3: refuse, or make it one")
add("length-twice-different", post("Content-Length: 5", "Content-Length: 6", body=b"hello!"), Refused(), why="RFC 9112 6.3; CVE-2005-2088")
add("length-twice-different-zero", post("Content-Length: 0", "Content-Length: 44"), Refused(), why="RFC 9112 6.3; CL.0 desync")
for name, value in {
    "list-same": "5, 5",
    "list-different": "5, 6",
    "plus": "+5",
    "minus": "-5",
    "minus-zero": "-0",
    "hex": "0x5",
    "fraction": "5.0",
    "exponent": "5e0",
    "digits-underscore": "1_0",
    "empty": "",
    "inner-space": "5 5",
    "word": "five",
    "vtab": "5\x0b",
    "form-feed": "\x0c5",
    "nul": "5\x00",
    "comma": "5,",
    "quoted": '"5"',
    "arabic-digit": "\xd9\xa5",
    "overflow-u64": "18446744073709551621",
    "overflow-decimal": "9" * 40,
}.items():
    add(f"length-{name}", post(f"Content-Length: {value}"), Refused(), why="RFC 9110 8.6: 1*DIGIT")
add("length-largest-then-end", post("Content-Length: 9223372036854775807", body=b"hello"), Broken(), why="RFC 9112 8: incomplete", half_closed=True, smuggles=False)
add("length-short-then-end", post("Content-Length: 10", body=b"hello"), Broken(), why="RFC 9112 8: incomplete", half_closed=True, smuggles=False)
add("length-space-before-colon", post("Content-Length : 5", body=b"hello"), Refused(), why="RFC 9112 5.1: a server must refuse it")
add("length-tab-before-colon", post("Content-Length\t: 5", body=b"hello"), Refused(), why="RFC 9112 5.1")
add("length-folded", post("Content-Length:\r\n 5", body=b"hello"), Refused(), why="RFC 9112 5.2: refuse obs-fold")
add("length-folded-value", post("Content-Length: 5\r\n 5", body=b"hello"), Refused(), why="RFC 9112 5.2")
add("length-underscore", post("Content_Length: 5"), EMPTY, why="CGI reads _ as -: the twin goes")
add("length-http10", head("POST / HTTP/1.0", "Content-Length: 5") + b"hello", HELLO, why="RFC 9112 9.3: 1.0 closes", closes=True)
add("length-next-request-behind", post("Content-Length: 5", body=b"helloGET /second HTTP/1.1\r\nHost: app.localhost\r\n\r\n"), HELLO, Request(target="/second"), why="RFC 9112 9.3.2: the body ends at its length")
add("length-body-looks-like-request", post("Content-Length: 46", body=b"GET /smuggled HTTP/1.1\r\nHost: app.localhost\r\n\r\n"[:46]), Request("POST", body=b"GET /smuggled HTTP/1.1\r\nHost: app.localhost\r\n\r\n"[:46]), why="a body is never a request")

# Transfer-Encoding
add("coding", post(CHUNKED, body=HELLO_CHUNKED), HELLO, why="RFC 9112 7.1")
add("coding-get", get(CHUNKED) + HELLO_CHUNKED, Request(body=b"hello"), why="RFC 9112 6.3")
add("coding-http10", head("POST / HTTP/1.0", CHUNKED) + HELLO_CHUNKED, Refused(), why="RFC 9112 6.1: faulty framing in 1.0")
for name, value in {"mixed-case": "Chunked", "upper-case": "CHUNKED", "white-space-around": "\t chunked \t"}.items():
    add(f"coding-{name}", post(f"Transfer-Encoding:{value}", body=HELLO_CHUNKED), HELLO, why="RFC 9112 7: codings are case-insensitive")
for name, value in {
    "identity": "identity",
    "identity-first": "identity, chunked",
    "identity-last": "chunked, identity",
    "twice-in-list": "chunked, chunked",
    "gzip-first": "gzip, chunked",
    "gzip-last": "chunked, gzip",
    "x-prefix": "xchunked",
    "x-suffix": "chunkedx",
    "inner-space": "chun ked",
    "two-words": "x chunked",
    "quoted": '"chunked"',
    "single-quoted": "'chunked'",
    "parameter": "chunked;q=1",
    "leading-comma": ",chunked",
    "trailing-comma": "chunked,",
    "vtab-before": "\x0bchunked",
    "vtab-after": "chunked\x0b",
    "form-feed": "\x0cchunked",
    "nul": "\x00chunked",
    "nul-after": "chunked\x00",
    "nbsp": "\xa0chunked",
    "soft-hyphen": "chun\xadked",
    "empty": "",
    "cow": "cow",
    "kelvin-sign": "chun\xe2\x84\xaaed",
}.items():
    add(f"coding-{name}", post(f"Transfer-Encoding: {value}", body=HELLO_CHUNKED), CODING, why="RFC 9112 6.1, 7; TE.TE desync")
add("coding-space-before-colon", post("Transfer-Encoding : chunked", body=HELLO_CHUNKED), Refused(), why="RFC 9112 5.1")
add("coding-vtab-before-colon", post("Transfer-Encoding\x0b: chunked", body=HELLO_CHUNKED), Refused(), why="RFC 9110 5.6.2: no token")
add("coding-nul-in-name", post("Transfer-Encoding\x00: chunked", body=HELLO_CHUNKED), Refused(), why="RFC 9110 5.6.2")
add("coding-0xff-in-name", post("Transfer-Encoding\xff: chunked", body=HELLO_CHUNKED), Refused(), why="RFC 9110 5.6.2")
add("coding-leading-space", post(" Transfer-Encoding: chunked", body=HELLO_CHUNKED), Refused(), why="RFC 9112 5.2: a folded Host, or a field")
add("coding-folded", post("Transfer-Encoding:\r\n chunked", body=HELLO_CHUNKED), Refused(), why="RFC 9112 5.2")
add("coding-folded-lf", post("Transfer-Encoding:\n chunked", body=HELLO_CHUNKED), Refused(), why="RFC 9112 5.2")
add("coding-folded-list", post("Transfer-Encoding: chunked,\r\n identity", body=HELLO_CHUNKED), Refused(), why="RFC 9112 5.2")
add("coding-behind-bare-cr", post("X: y\rTransfer-Encoding: chunked", body=HELLO_CHUNKED), Refused(), why="RFC 9112 2.2: bare CR")
add("coding-underscore", post("Transfer_Encoding: chunked"), EMPTY, why="CGI reads _ as -: the twin goes")
add("coding-two-lines", post(CHUNKED, CHUNKED, body=HELLO_CHUNKED), CODING, why="RFC 9112 7.1: chunked once")
add("coding-chunked-then-identity-line", post(CHUNKED, "Transfer-Encoding: identity", body=HELLO_CHUNKED), CODING, why="TE.TE desync")
add("coding-identity-line-then-chunked", post("Transfer-Encoding: identity", CHUNKED, body=HELLO_CHUNKED), CODING, why="TE.TE desync")
add("coding-cow-line-then-chunked", post("Transfer-Encoding: cow", CHUNKED, body=HELLO_CHUNKED), CODING, why="TE.TE desync")

# Both
both = "RFC 9112 6.1: the coding wins and the connection ends; CVE-2019-18277"
add("length-then-coding", post("Content-Length: 6", CHUNKED, body=HELLO_CHUNKED), HELLO, why=both, closes=True)
add("coding-then-length", post(CHUNKED, "Content-Length: 6", body=HELLO_CHUNKED), HELLO, why=both, closes=True)
add("length-then-coding-smuggle", post("Content-Length: 4", CHUNKED, body=b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: app.localhost\r\n\r\n"), EMPTY, why=both, closes=True)
add("coding-then-length-mixed-case", post("Transfer-Encoding: Chunked", "Content-Length: 6", body=HELLO_CHUNKED), HELLO, why=both, closes=True)
add("length-and-bad-coding", post("Content-Length: 5", "Transfer-Encoding: xchunked", body=b"hello"), CODING, why="TE.CL desync")
add("length-and-identity", post("Content-Length: 5", "Transfer-Encoding: identity", body=b"hello"), CODING, why="RFC 9112 6.1: identity is no coding any more")
add("length-and-empty-coding", post("Content-Length: 5", "Transfer-Encoding: ", body=b"hello"), CODING, why="CL.TE desync")
add("bad-length-and-coding", post("Content-Length: x", CHUNKED, body=HELLO_CHUNKED), Refused(), why="RFC 9110 8.6: an invalid length is never passed over")
add("two-lengths-and-coding", post("Content-Length: 5", "Content-Length: 6", CHUNKED, body=HELLO_CHUNKED), Refused(), why="RFC 9112 6.3")

# Chunks
def chunks(body: bytes) -> bytes:
    return post(CHUNKED, body=body)


for name, body in {
    "two": b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    "byte-by-byte": b"".join(b"1\r\n%c\r\n" % byte for byte in b"hello") + b"0\r\n\r\n",
    "leading-zeros": b"0005\r\nhello\r\n000\r\n\r\n",
    "many-leading-zeros": b"0" * 30 + b"5\r\nhello\r\n0\r\n\r\n",
    "extension": b"5;name=value\r\nhello\r\n0;last\r\n\r\n",
    "extension-quoted": b'5;name="a;b, c"\r\nhello\r\n0\r\n\r\n',
    "extension-no-value": b"5;x\r\nhello\r\n0\r\n\r\n",
    "nul-in-extension": b"5;x\x00\r\nhello\r\n0\r\n\r\n",
    "space-before-extension": b"5 ;x=y\r\nhello\r\n0\r\n\r\n",
}.items():
    add(f"chunk-{name}", chunks(body), HELLO, why="RFC 9112 7.1, 7.1.1: extensions are read and left out")
add("chunk-upper-hex", chunks(b"A\r\n0123456789\r\n0\r\n\r\n"), Request("POST", body=b"0123456789"), why="RFC 9112 7.1")
add("chunk-lower-hex", chunks(b"a\r\n0123456789\r\n0\r\n\r\n"), Request("POST", body=b"0123456789"), why="RFC 9112 7.1")
add("chunk-none", chunks(b"0\r\n\r\n"), EMPTY, why="RFC 9112 7.1")
add("chunk-looks-like-end", chunks(b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n"), Request("POST", body=b"\r\n0\r\n\r\n"), why="a body is never framing")
add("chunk-thousand", chunks(b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n"), Request("POST", body=b"x" * 1000), why="RFC 9112 7.1")
add("chunk-large", chunks(b"40000\r\n" + b"x" * 0x40000 + b"\r\n0\r\n\r\n"), Request("POST", body=b"x" * 0x40000), why="RFC 9112 7.1: 256 KiB")
for name, (body, why) in {
    "no-size": (b"\r\nhello\r\n0\r\n\r\n", "RFC 9112 7.1: 1*HEXDIG"),
    "not-hex": (b"g\r\nhello\r\n0\r\n\r\n", "RFC 9112 7.1"),
    "hex-then-letter": (b"5g\r\nhello\r\n0\r\n\r\n", "RFC 9112 7.1"),
    "0x": (b"0x5\r\nhello\r\n0\r\n\r\n", "RFC 9112 7.1"),
    "plus": (b"+5\r\nhello\r\n0\r\n\r\n", "RFC 9112 7.1"),
    "minus": (b"-5\r\nhello\r\n0\r\n\r\n", "RFC 9112 7.1"),
    "leading-space": (b" 5\r\nhello\r\n0\r\n\r\n", "RFC 9112 7.1"),
    "inner-space": (b"5 5\r\nhello\r\n0\r\n\r\n", "RFC 9112 7.1"),
    "vtab": (b"5\x0b\r\nhello\r\n0\r\n\r\n", "RFC 9112 7.1"),
    "nul": (b"5\x00\r\nhello\r\n0\r\n\r\n", "RFC 9112 7.1"),
    "overflow": (b"10000000000000005\r\nhello\r\n0\r\n\r\n", "RFC 9112 7.1: a recipient must see overflows"),
    "overflow-far": (b"F" * 64 + b"\r\nhello\r\n0\r\n\r\n", "RFC 9112 7.1"),
    "bare-lf-after-size": (b"5\nhello\r\n0\r\n\r\n", "RFC 9112 2.2, 7.1: bare LF; TERM.EXT desync"),
    "bare-cr-after-size": (b"5\rhello\r\n0\r\n\r\n", "RFC 9112 2.2"),
    "bare-lf-after-data": (b"5\r\nhello\n0\r\n\r\n", "RFC 9112 7.1"),
    "no-crlf-after-data": (b"5\r\nhello0\r\n\r\n", "RFC 9112 7.1"),
    "too-much-data": (b"5\r\nhello!\r\n0\r\n\r\n", "RFC 9112 7.1"),
    "two-bytes-for-crlf": (b"5\r\nhelloXX0\r\n\r\n", "RFC 9112 7.1; CVE-2024-45384-like: two bytes thrown away unread"),
    "lf-in-extension": (b"5;x\ny\r\nhello\r\n0\r\n\r\n", "RFC 9112 7.1.1; EXT.TERM desync (Jeppe Bonde Weikop, 2025)"),
    "cr-in-extension": (b"5;x\ry\r\nhello\r\n0\r\n\r\n", "RFC 9112 7.1.1"),
    "long-extension": (b"5;" + b"x" * 70000 + b"\r\nhello\r\n0\r\n\r\n", "RFC 9112 7.1.1: limit them"),
    "many-long-extensions": ((b"1;" + b"x" * 900 + b"\r\nx\r\n") * 100 + b"0\r\n\r\n", "CVE-2023-39326: extensions far beyond the data"),
    "lf-ends-last": (b"5\r\nhello\r\n0\n\n", "RFC 9112 7.1"),
    "bare-cr-ends-last": (b"5\r\nhello\r\n0\r\r", "RFC 9112 7.1"),
}.items():
    add(f"chunk-{name}", chunks(body), Broken(), why=why)
add("chunk-end-in-data", chunks(b"5\r\nhel"), Broken(), why="RFC 9112 8: incomplete", half_closed=True, smuggles=False)
add("chunk-end-in-size", chunks(b"5"), Broken(), why="RFC 9112 8", half_closed=True, smuggles=False)
add("chunk-end-before-last", chunks(b"5\r\nhello\r\n"), Broken(), why="RFC 9112 8", half_closed=True, smuggles=False)
add("chunk-end-before-trailers", chunks(b"5\r\nhello\r\n0\r\n"), Broken(), why="RFC 9112 8", half_closed=True, smuggles=False)
add("chunk-next-request-behind", chunks(HELLO_CHUNKED + b"GET /second HTTP/1.1\r\nHost: app.localhost\r\n\r\n"), HELLO, Request(target="/second"), why="RFC 9112 9.3.2")

# Trailers
def trailed(trailers: str, declared: str | None = "X-Sum", *lines: str) -> bytes:
    declared_line = [f"Trailer: {declared}"] if declared else []
    return post(CHUNKED, *declared_line, *lines, body=b"5\r\nhello\r\n0\r\n" + trailers.encode("latin-1") + b"\r\n")


def with_trailers(*trailers: tuple[str, str], declared: str | None = "X-Sum") -> Request:
    return Request("POST", body=b"hello", trailers=trailers, fields=(("trailer", declared),) if declared else ())


add("trailer", trailed("X-Sum: 1\r\n"), with_trailers(("x-sum", "1")), why="RFC 9110 6.5")
add("trailer-undeclared", trailed("X-Sum: 1\r\n", None), with_trailers(declared=None), why="RFC 9110 6.5.1: an undeclared one may be left out")
for name in [
    "Host", "Content-Length", "Transfer-Encoding", "Connection", "Trailer", "Upgrade", "TE", "Expect", "Keep-Alive",
    "Authorization", "Cookie", "X-Forwarded-For", "X-Forwarded-Host", "Forwarded", "X-Real-Ip", "X-Request-Id",
    "Traceparent", "Content-Type", "Content-Encoding", "Range", "If-Match", "Proxy-Authorization", "Max-Forwards",
    "X_Forwarded_For", "Content_Length", "Proxy",
]:  # fmt: skip
    add(f"trailer-{name.lower()}", trailed(f"{name}: 1\r\nX-Sum: 1\r\n"), with_trailers(("x-sum", "1")), why="RFC 9110 6.5.1: only a head may say it")
    add(f"trailer-declared-{name.lower()}", trailed("X-Sum: 1\r\n", f"X-Sum, {name}"), with_trailers(("x-sum", "1")), why="RFC 9110 6.6.2: what does not go on is not announced (Go's net/http refuses some)")
add("trailer-space-before-colon", trailed("X-Sum : 1\r\n"), Broken(), why="RFC 9112 5.1")
add("trailer-no-colon", trailed("X-Sum\r\n"), Broken(), why="RFC 9112 5")
add("trailer-folded", trailed("X-Sum: 1\r\n 2\r\n"), Broken(), why="RFC 9112 5.2")
add("trailer-nul", trailed("X-Sum: \x00\r\n"), Broken(), why="RFC 9110 5.5")
add("trailer-bare-cr", trailed("X-Sum: 1\rHost: evil\r\n"), Broken(), why="RFC 9112 2.2")
add("trailer-request-line", trailed("GET /smuggled HTTP/1.1\r\n"), Broken(), why="RFC 9112 5: not a field")
add("trailer-large", trailed(f"X-Sum: {'x' * 100_000}\r\n"), Broken((400, 431)), why="bounded memory")
add("trailer-many", trailed("X-Sum: 1\r\n" * 10_000), Broken((400, 431)), why="bounded memory")

CASES = T.cases
