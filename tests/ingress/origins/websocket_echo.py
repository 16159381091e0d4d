"""An echo server of Python's websockets, with its defaults (permessage-deflate among them) and no limit of size."""

import asyncio
import json
import logging

from websockets.asyncio.server import ServerConnection, serve

logging.getLogger("websockets").setLevel(logging.CRITICAL)


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


async def main() -> None:
    async with serve(echo, "127.0.0.1", 0, max_size=None, ping_interval=None) as server:
        print(json.dumps({"ready": server.sockets[0].getsockname()[1]}), flush=True)
        await server.serve_forever()


asyncio.run(main())
