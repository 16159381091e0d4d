"""Connections: several requests on one, early answers, changes of protocol."""

from .case import Answered, Refused, Request, SMUGGLED, Table, get, head, post

T = Table()
add = T.add

SECOND = get(target="/second")
pipeline = "RFC 9112 9.3.2"

add("pipeline-two", get() + SECOND, Request(), Request(target="/second"), why=pipeline)
add("pipeline-ten", b"".join(get(target=f"/{number}") for number in range(10)), *(Request(target=f"/{number}") for number in range(10)), why=pipeline)
add("pipeline-bodies", post("Content-Length: 3", body=b"one") + post("Transfer-Encoding: chunked", body=b"3\r\ntwo\r\n0\r\n\r\n") + SECOND, Request("POST", body=b"one"), Request("POST", body=b"two"), Request(target="/second"), why=pipeline)
add("pipeline-head", head("HEAD / HTTP/1.1") + SECOND, Request("HEAD"), Request(target="/second"), why="RFC 9110 9.3.2: no body after HEAD")
add("pipeline-good-then-bad", get() + get("X : y"), Request(), Refused(), why="RFC 9112 9.3.2, 5.1")
add("pipeline-good-then-two-hosts", get() + get("Host: evil.example"), Request(), Refused((400,), "invalid_hostname"), why="RFC 9112 3.2")
add("pipeline-good-then-other-host", get() + head("GET / HTTP/1.1", host="Host: nobody.localhost"), Request(), Answered(404, "project_not_found"), why="each request is routed by its own Host")
add("pipeline-other-host-then-good", head("GET / HTTP/1.1", host="Host: nobody.localhost") + get(), Answered(404, "project_not_found"), Request(), why="each request is routed by its own Host")
add("pipeline-bad-then-good", get("X : y") + get(), Refused(), why="RFC 9112 9.6: nothing after a refused one")
add("pipeline-refused-with-body-then-good", post("Connection: host", "Content-Length: 5", body=b"hello") + get(), Refused((400,), "invalid_request"), why="RFC 9112 9.6")
add("pipeline-refused-with-body-missing", post("Connection: host", "Content-Length: 44"), Refused((400,), "invalid_request"), why="the body that looks like a request is none")
add("pipeline-unknown-host-with-body", head("POST / HTTP/1.1", "Content-Length: 5", host="Host: nobody.localhost") + b"hello" + SECOND, Answered(404, "project_not_found"), Request(target="/second"), why="the body that nobody wants is read, or the connection ends: it is no request")
add("pipeline-unknown-host-body-like-request", head("POST / HTTP/1.1", f"Content-Length: {len(SMUGGLED)}", host="Host: nobody.localhost") + SMUGGLED, Answered(404, "project_not_found"), why="RFC 9112 9.3: an undrained body is no request")
add("pipeline-get-body-like-request", get(f"Content-Length: {len(SMUGGLED)}") + SMUGGLED + SECOND, Request(body=SMUGGLED), Request(target="/second"), why="GET with a body; CL.0")
add("pipeline-close-then-more", get("Connection: close") + SMUGGLED, Request(), why="RFC 9112 9.6: nothing after close is served", closes=True)
add("pipeline-close-among-others", get("Connection: x-a, CLOSE") + SMUGGLED, Request(), why="RFC 9112 9.6", closes=True)
add("pipeline-close-and-keep-alive", get("Connection: keep-alive, close") + SMUGGLED, Request(), why="RFC 9112 9.3: close wins", closes=True)
add("pipeline-close-second-line", get("Connection: keep-alive", "Connection: close") + SMUGGLED, Request(), why="RFC 9112 9.3: close wins", closes=True)
add("pipeline-http10-then-more", head("GET / HTTP/1.0") + SMUGGLED, Request(), why="RFC 9112 9.3: 1.0 is not persistent", closes=True)
add("pipeline-http10-proxy-keep-alive", head("GET / HTTP/1.0", "Proxy-Connection: keep-alive") + SMUGGLED, Request(), why="RFC 9112 C.2.2: not looked at", closes=True)
add("pipeline-options-asterisk", head("OPTIONS * HTTP/1.1") + SECOND, Request("OPTIONS", "*"), Request(target="/second"), why="RFC 9112 3.2.4")
add("pipeline-in-pieces", (get(), SECOND, get(target="/third")), Request(), Request(target="/second"), Request(target="/third"), why="RFC 9112 9.3")

# Early answers
early = "RFC 9112 9.3, 7.5 of RFC 9110: the answer reaches the client, the rest of the body is no request"
add("early-answer", (head("POST /early HTTP/1.1", "Content-Length: 100000") + b"x" * 100,), Request("POST", "/early", status=413), why=early, closes=True, recorder_only=True)
add("early-answer-body-like-request", head("POST /early HTTP/1.1", "Content-Length: 100000") + SMUGGLED * 10, Request("POST", "/early", status=413), why=early, closes=True, recorder_only=True)
add("early-answer-chunked", head("POST /early HTTP/1.1", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n", Request("POST", "/early", status=413), why=early, closes=True, recorder_only=True)

# Informational answers
add("hints", get(target="/hints"), Request(target="/hints"), why="RFC 9110 15.2: 1xx go on", recorder_only=True)
add("hints-http10", head("GET /hints HTTP/1.0"), Request(target="/hints", is_http10=True), why="RFC 9110 15.2: no 1xx for 1.0", recorder_only=True, closes=True)

# Changes of protocol
WEBSOCKET = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
SWITCHED = (("connection", "upgrade"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="), ("sec-websocket-version", "13"), ("upgrade", "websocket"))
add("switch", head("GET /switch HTTP/1.1", *WEBSOCKET), Request(target="/switch", fields=SWITCHED, status=101), why="RFC 6455 4.2.2", recorder_only=True)
add("switch-with-cookie", head("GET /switch HTTP/1.1", *WEBSOCKET, "Cookie: a=b", "Authorization: Bearer x"), Request(target="/switch", fields=(("authorization", "Bearer x"), ("connection", "upgrade"), ("cookie", "a=b"), *SWITCHED[1:]), status=101), why="HAZARDS: pass Cookie and Authorization", recorder_only=True)
add("switch-bytes-before-101", head("GET /switch HTTP/1.1", *WEBSOCKET) + SMUGGLED, Request(target="/switch", fields=SWITCHED, status=101), why="bytes before the 101 never become a tunnel", closes=True, recorder_only=True)
add("switch-other-protocol", head("GET /switch HTTP/1.1", "Connection: upgrade", "Upgrade: custom/1"), Request(target="/switch", fields=(("connection", "upgrade"), ("upgrade", "custom/1")), status=101), why="RFC 9110 7.8: other upgrades pass", recorder_only=True)
add("switch-unasked", get(target="/switch"), Request(target="/switch", status=502), why="RFC 9110 15.2.2: a 101 that nobody asked for", recorder_only=True)
add("switch-h2c-asked", head("GET /switch HTTP/1.1", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"), Request(target="/switch", status=502), why="h2c smuggling: the origin would switch, ingress does not", recorder_only=True)
add("switch-refused", head("GET / HTTP/1.1", *WEBSOCKET) + SECOND, Request(fields=SWITCHED), Request(target="/second"), why="RFC 9110 7.8: no 101, so the connection goes on as it was", recorder_only=True)

CASES = T.cases
