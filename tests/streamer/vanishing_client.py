"""Connects to a server, prints its session, and waits to be killed: `python -m tests.streamer.vanishing_client URL`."""

from __future__ import annotations

import asyncio
import json
import sys

from tests.streamer.live import Client


async def main() -> None:
    client = Client(sys.argv[1])
    await client.connect()
    await client.until_frames(3)
    print(json.dumps(client.session), flush=True)
    await asyncio.sleep(60)


if __name__ == "__main__":
    asyncio.run(main())
