"""Opens and closes many sessions against a real server and checks that nothing grows: `python tests/benchmarks/soak.py`.

By default with the tiny pipeline of the tests; `--url` takes a server that runs already. Prints one line per ten sessions
and writes the series as JSON. Exit status 1 when memory, threads, descriptors or tasks grew by more than the limits.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from streamer.tidy import DELAY_S  # noqa: E402
from tests.streamer.live import Client, LiveServer, serving  # noqa: E402

SERIES = ("open_descriptors", "threads", "asyncio_tasks", "resident_bytes")
MAX_GROWTH = {"open_descriptors": 2, "threads": 2, "asyncio_tasks": 2, "resident_bytes": 5 << 20}
TIDY_S = DELAY_S + 0.5  # the server gives memory back this long after a session has ended
WARM_UP = 10  # sessions before the reference is taken: codecs, pools and caches are filled by the first ones


class RunningServer(LiveServer):
    """A server somebody else has started."""

    def __init__(self, url: str) -> None:
        self.url = url


async def one_session(url: str, index: int, seconds: float) -> None:
    client = Client(url, mode=("mirror", "agent")[index % 2])
    try:
        await client.connect()
        await client.until_frames(3)
        await asyncio.sleep(seconds)
    finally:
        # Every third one leaves without saying so.
        await (client.vanish() if index % 3 == 2 else client.close())


async def counts(server: LiveServer) -> dict[str, float]:
    for _ in range(200):
        if await asyncio.to_thread(server.metric, "livemimic_sessions") == 0:
            break
        await asyncio.sleep(0.05)
    await asyncio.sleep(TIDY_S)
    return {name: await asyncio.to_thread(server.metric, f"livemimic_{name}") for name in SERIES}


async def soak(server: LiveServer, num_sessions: int, parallel: int, seconds: float) -> dict[str, object]:
    samples: list[dict[str, float]] = []
    started_s = time.monotonic()
    for first in range(0, num_sessions + WARM_UP, parallel):
        await asyncio.gather(*(one_session(server.url, first + i, seconds) for i in range(parallel)))
        if first + parallel >= WARM_UP and (first // parallel) % max(1, 10 // parallel) == 0:
            sample = await counts(server)
            samples.append({"sessions": first + parallel, **sample})
            print(", ".join(f"{name} {value:.0f}" for name, value in samples[-1].items()), flush=True)
    samples.append({"sessions": num_sessions + WARM_UP, **await counts(server)})
    growth = {name: samples[-1][name] - samples[0][name] for name in SERIES}
    return {
        "num_sessions": num_sessions,
        "seconds": round(time.monotonic() - started_s, 1),
        "growth": growth,
        "flat": all(growth[name] <= MAX_GROWTH[name] for name in SERIES),
        "samples": samples,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a server that runs already; default: start one with the tiny pipeline")
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.2, help="how long each session stays")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        server = RunningServer(args.url) if args.url else stack.enter_context(serving())
        result = asyncio.run(soak(server, args.sessions, args.parallel, args.seconds))
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print("flat" if result["flat"] else f"grew: {result['growth']}")
    return 0 if result["flat"] else 1


if __name__ == "__main__":
    sys.exit(main())
