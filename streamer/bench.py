"""`livemimic bench`: how fast this machine generates, measured on the real pipeline in the real worker process.

One session runs chunk after chunk, its audio and frames through shared memory as in the server, so that the numbers
include everything but encoding. Sessions that fit come from the same rule the server admits by.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import os
import platform
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from streamer import worker_messages as msg
from streamer.admission import Admission, percentile
from streamer.cli import worker_config
from streamer.config import WorkerConfig, version
from streamer.worker_client import WorkerClient

LOAD_TIMEOUT_S = 300.0
_SESSION = "bench"
_PACKAGES = ("torch", "numpy", "aiortc", "av")


class BenchError(Exception):
    """The worker could not be measured; the text says why."""


@dataclass(slots=True)
class _Listener:
    """Implements `WorkerListener`: every report of the worker goes into one queue."""

    reports: asyncio.Queue[msg.Frames | str] = field(default_factory=asyncio.Queue)

    def worker_ready(self) -> None:
        self.reports.put_nowait("ready")

    def worker_lost(self, reason: str) -> None:
        self.reports.put_nowait(reason)

    def worker_unusable(self, reason: str) -> None:
        self.reports.put_nowait(reason)

    def session_opened(self, session: str) -> None:
        self.reports.put_nowait("opened")

    def frames_ready(self, reply: msg.Frames, frames: np.ndarray) -> None:
        self.reports.put_nowait(reply)

    def step_dropped(self, reply: msg.Dropped) -> None:
        self.reports.put_nowait("a step was dropped")

    def request_failed(self, reply: msg.Failed) -> None:
        self.reports.put_nowait(reply.error)

    async def expect(self, word: str, timeout_s: float) -> None:
        report = await asyncio.wait_for(self.reports.get(), timeout_s)
        if report != word:
            raise BenchError(str(report))


def run(args: argparse.Namespace) -> int:
    try:
        result = asyncio.run(measure(worker_config(args), args.seconds))
    except (BenchError, ValueError, TimeoutError) as error:
        print(f"livemimic bench: {error or 'the worker does not answer'}", file=sys.stderr)
        return 1
    print(table(result))
    if args.json is not None:
        Path(args.json).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


async def measure(config: WorkerConfig, seconds: float) -> dict[str, Any]:
    """Runs one session for so many seconds and collects the numbers."""
    listener = _Listener()
    client = WorkerClient(config, listener)
    client.start()
    try:
        await listener.expect("ready", LOAD_TIMEOUT_S)
        warmup_ms = {batch: client.step_times.cost_ms(batch) for batch in client.step_times.batches}
        chunk_ms = client.geometry.chunk_ms
        capacity = Admission(client.step_times, chunk_ms, None).capacity()
        round_trips_ms, steps_ms = await _run_session(client, listener, seconds)
        return {
            "machine": machine(),
            "versions": {"livemimic": version()} | {name: importlib.metadata.version(name) for name in _PACKAGES},
            "config": {
                "preset": config.preset,
                "device": config.device,
                "steps": config.steps,
                "threads": config.num_threads,
            },
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "load_s": round(client.load_s, 2),
            "num_chunks": len(steps_ms),
            "chunk_ms": chunk_ms,
            "step_ms": _percentiles(steps_ms),
            "round_trip_ms": _percentiles(round_trips_ms),
            "real_time_factor": round(percentile(round_trips_ms, 0.5) / chunk_ms, 3),
            "batch_step_ms": {str(batch): round(ms, 1) for batch, ms in warmup_ms.items()},
            "sessions": capacity,
        }
    finally:
        await client.stop()


async def _run_session(client: WorkerClient, listener: _Listener, seconds: float) -> tuple[list[float], list[float]]:
    geometry = client.geometry
    client.open(_SESSION, np.full((geometry.height, geometry.width, 3), 128, dtype=np.uint8), 0)
    await listener.expect("opened", LOAD_TIMEOUT_S)
    voice = np.random.default_rng(0).integers(-3000, 3000, geometry.step_samples_16k).astype(np.int16)
    round_trips_ms: list[float] = []
    steps_ms: list[float] = []
    end_s = time.monotonic() + seconds
    index = 0
    while time.monotonic() < end_s or index < 3:
        started_s = time.monotonic()
        client.step(_SESSION, 0, index, index - 1, voice, "speaking", started_s)
        report = await asyncio.wait_for(listener.reports.get(), LOAD_TIMEOUT_S)
        if not isinstance(report, msg.Frames):
            raise BenchError(report)
        round_trips_ms.append((time.monotonic() - started_s) * 1000)
        steps_ms.append(report.step_ms)
        index += 1
    return round_trips_ms, steps_ms


def _percentiles(values: list[float]) -> dict[str, float]:
    return {name: round(percentile(values, share), 2) for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}


def machine() -> dict[str, Any]:
    """Processor, cores this process may use, system, load of the moment."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def table(result: dict[str, Any]) -> str:
    def row(name: str, value: object) -> str:
        return f"{name:<26} {value}"

    step, trip = result["step_ms"], result["round_trip_ms"]
    machine_, versions = result["machine"], result["versions"]
    return "\n".join(
        [
            row("machine", f"{machine_['cpu']}, {machine_['cores']} cores, load {machine_['load_average']}"),
            row("versions", ", ".join(f"{name} {number}" for name, number in versions.items())),
            row("model loaded in", f"{result['load_s']} s"),
            row("chunk", f"{result['chunk_ms']} ms of video, {result['num_chunks']} measured"),
            row("step p50 / p95 / p99", f"{step['p50']} / {step['p95']} / {step['p99']} ms"),
            row("with transport", f"{trip['p50']} / {trip['p95']} / {trip['p99']} ms"),
            row("step by batch size", ", ".join(f"{size}: {ms} ms" for size, ms in result["batch_step_ms"].items())),
            row("real-time factor", result["real_time_factor"]),
            row("sessions that fit", result["sessions"]),
        ]
    )
