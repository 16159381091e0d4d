"""uvicorn with h11: tells each request that it got as a JSON line on standard output, and answers 200 `ok`."""

import asyncio
import json
import socket
import sys

import uvicorn


def tell(line: dict) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def app(scope: dict, receive, send) -> None:
    body = b""
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            return  # It broke off: no request.
        body += event.get("body", b"")
        if not event.get("more_body"):
            break
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    tell({
        "method": scope["method"],
        "target": (scope["raw_path"] + query).decode("latin-1"),
        "fields": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
        "body": body.hex(),
        "trailers": [],
    })
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else b"ok"})


listener = socket.create_server(("127.0.0.1", 0))
tell({"ready": listener.getsockname()[1]})
config = uvicorn.Config(
    app, http="h11", ws="none", lifespan="off", log_level="warning", h11_max_incomplete_event_size=256 * 1024
)
asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))
