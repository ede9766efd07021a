"""Prometheus metrics of one server. Per-frame facts end up here, not in the log.

One registry per instance, so that several servers can live in one test process.
"""

from __future__ import annotations

import asyncio
import os
import threading

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_STEP_BUCKETS = (0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.16, 0.2, 0.3, 0.5, 1.0)
_FAST_BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5)
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident_bytes(pid: int | str = "self") -> int:
    """Resident memory of a process, 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0


class Metrics:
    """All series, named `livemimic_*`; times in seconds."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.sessions = Gauge("livemimic_sessions", "Open sessions", registry=registry)
        self.capacity = Gauge("livemimic_session_capacity", "Sessions that fit", registry=registry)
        self.load = Gauge("livemimic_worker_load", "Share of real time the worker is busy", registry=registry)
        self.opened = Counter("livemimic_sessions_opened", "Sessions created", registry=registry)
        self.refused = Counter("livemimic_sessions_refused", "Sessions refused, by reason", ["code"], registry=registry)
        self.closed = Counter("livemimic_sessions_closed", "Sessions ended, by reason", ["reason"], registry=registry)
        self.fps = Gauge("livemimic_fps", "Frames sent in the last second, mean over sessions", registry=registry)
        self.units = Counter("livemimic_units_sent", "Media units sent", registry=registry)
        self.repeated = Counter("livemimic_frames_repeated", "Frames that were not there in time", registry=registry)
        self.late = Counter("livemimic_frames_late", "Frames that arrived too late and were dropped", registry=registry)
        self.expired = Counter("livemimic_chunks_expired", "Chunks given up before they ran", registry=registry)
        self.step = Histogram("livemimic_step_seconds", "One step", registry=registry, buckets=_STEP_BUCKETS)
        self.batch = Histogram("livemimic_step_batch", "Sessions of a step", registry=registry, buckets=(1, 2, 4, 8, 16))
        self.send_late = Histogram("livemimic_send_lateness_seconds", "Unit sent after its time", registry=registry, buckets=_FAST_BUCKETS)
        self.interrupts = Counter("livemimic_interrupts", "Interrupts, by origin", ["origin"], registry=registry)
        self.interrupt_latency = Histogram(
            "livemimic_interrupt_seconds",
            "From the call to the first silent unit",
            registry=registry,
            buckets=_FAST_BUCKETS,
        )
        self.skew = Gauge("livemimic_skew_seconds", "Video minus audio send lateness, p95 of |x|, worst session", registry=registry)
        self.restarts = Gauge("livemimic_worker_restarts", "Worker processes started again", registry=registry)
        self.rss = Gauge("livemimic_resident_bytes", "Resident memory", ["process"], registry=registry)
        self.tasks = Gauge("livemimic_asyncio_tasks", "Tasks of the event loop", registry=registry)
        self.threads = Gauge("livemimic_threads", "Threads of the media process", registry=registry)
        self.descriptors = Gauge("livemimic_open_descriptors", "Open file descriptors", registry=registry)
        self.errors = Counter("livemimic_http_errors", "Error answers, by code", ["code"], registry=registry)

    def render(self, worker_pid: int | None) -> bytes:
        """The exposition text, on the event loop; memory and the like are read at this moment."""
        self.tasks.set(len(asyncio.all_tasks()))
        self.threads.set(threading.active_count())
        self.descriptors.set(len(os.listdir("/proc/self/fd")))
        self.rss.labels("media").set(resident_bytes())
        self.rss.labels("worker").set(resident_bytes(worker_pid) if worker_pid is not None else 0)
        return generate_latest(self.registry)
