"""A viewer in a process of its own who tells when each picture came: whatever keeps the tests' own process busy does not show in that.

`python -m tests.streamer.bystander URL` prints its session as a line of JSON, then a line of seconds of the system's clock a frame.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np

from tests.streamer.live import Client

START_TIMEOUT_S = 15.0


class Bystander:
    """The process from outside."""

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen([sys.executable, "-m", "tests.streamer.bystander", url], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.session: dict[str, Any] = json.loads(self._process.stdout.readline())
        self._frames_s: list[float] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout:
            self._frames_s.extend(float(line) for line in self._process.stdout)

    def until_frames(self, count: int) -> None:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while len(self._frames_s) < count:
            if time.monotonic() > deadline_s:
                raise TimeoutError("no pictures come")
            time.sleep(0.02)

    def between(self, start_s: float, stop_s: float) -> np.ndarray:
        """When frames came in that time."""
        frames_s = np.array(self._frames_s)
        return frames_s[(frames_s >= start_s) & (frames_s < stop_s)]

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(START_TIMEOUT_S)
        self._reader.join(START_TIMEOUT_S)


async def watch(url: str) -> None:
    """Until it is terminated; then the session is ended as a good client does."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    client, told = Client(url), 0
    try:
        await client.connect()
        print(json.dumps(client.session), flush=True)
        while True:
            for when_s, _ in client.seen.luma[told:]:
                print(when_s, flush=True)
                told += 1
            await asyncio.sleep(0.02)
    finally:
        await client.close()


if __name__ == "__main__":
    with contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt):
        asyncio.run(watch(sys.argv[1]))
