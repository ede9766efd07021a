"""Configuration of the live server: one frozen dataclass per subsystem, checked once, passed by reference.

The only place that reads environment variables (prefix `LIVEMIMIC_`). Importable without torch, aiortc or FastAPI, so
that the command line can show its help at once.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from model.geometry import Geometry
from model.presets import PUBLISHED, LiveOptions

DEFAULT_PIPELINE = "model.presets:load_pipeline"
DEMO_DIR = Path(__file__).resolve().parent.parent / "client_demo"


def _require(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} = {value} is out of range: {low} to {high}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """What the worker process loads, and how large its shared arena is."""

    pipeline_factory: str = DEFAULT_PIPELINE  # "module:function", called with the keywords of `options`
    preset: str = "presenter"
    weights: Path | None = None
    device: str = "auto"
    steps: int | None = None
    live: LiveOptions = field(default_factory=LiveOptions)  # of the published presets
    num_slots: int = 64  # requests in flight over all sessions
    num_threads: int = 1  # torch threads: more than one steals the core of the media process
    max_batch: int = 8
    answer_timeout_s: float = 20.0  # a worker that is silent on a step for this long is killed and started anew

    def __post_init__(self) -> None:
        _require("num_slots", self.num_slots, 2, 4096)
        _require("num_threads", self.num_threads, 1, 256)
        _require("max_batch", self.max_batch, 1, 256)
        if ":" not in self.pipeline_factory:
            raise ValueError(f"pipeline_factory = {self.pipeline_factory!r} is not of the form module:function")

    @property
    def options(self) -> dict[str, object]:
        """Keywords of the pipeline factory."""
        return {"preset": self.preset, "weights": self.weights, "device": self.device, "steps": self.steps, "live": self.live}

    @property
    def portrait_side(self) -> int:
        """Pixels of the square picture that a session is opened with: the video's own."""
        return self.live.width if self.preset in PUBLISHED else Geometry().width


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionConfig:
    """Time limits and delays of one session."""

    mic_slack_ms: int = 40  # how long a chunk waits for late microphone packets before they are concealed
    connect_ttl_s: float = 30.0  # created but never connected
    heartbeat_ttl_s: float = 10.0  # no RTP, RTCP, WebSocket or ICE consent
    token_ttl_s: float = 3600.0  # counted from the last sign of life
    ice_servers: tuple[str, ...] = ()
    barcode: bool = False  # draw the unit index into the picture, for measurements
    trace_dir: Path | None = None  # per session: SESSION.json and SESSION.wav

    def __post_init__(self) -> None:
        _require("mic_slack_ms", self.mic_slack_ms, 0, 1000)
        _require("connect_ttl_s", self.connect_ttl_s, 0.1, 3600)
        _require("heartbeat_ttl_s", self.heartbeat_ttl_s, 0.1, 3600)
        _require("token_ttl_s", self.token_ttl_s, 0.1, 7 * 86400)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """Everything `livemimic serve` needs."""

    host: str = "127.0.0.1"
    port: int = 8080
    worker: WorkerConfig = field(default_factory=WorkerConfig)
    session: SessionConfig = field(default_factory=SessionConfig)
    portrait: str | None = None  # name of a built-in portrait, or a file that is offered first
    max_sessions: int | None = None
    cors_origins: tuple[str, ...] = ()
    demo_dir: Path = DEMO_DIR
    open_browser: bool = True
    log_level: str = "info"

    def __post_init__(self) -> None:
        _require("port", self.port, 0, 65535)
        if self.max_sessions is not None:
            _require("max_sessions", self.max_sessions, 1, 100_000)


def env_default(name: str, fallback: str, environ: Mapping[str, str] | None = None) -> str:
    """Default of a command-line option: `LIVEMIMIC_<NAME>` where set, else the fallback."""
    return (os.environ if environ is None else environ).get(f"LIVEMIMIC_{name}", fallback)


def has_desktop(environ: Mapping[str, str] | None = None) -> bool:
    """Whether opening a browser makes sense: a display is there and nobody runs us in CI."""
    variables = os.environ if environ is None else environ
    return bool(variables.get("DISPLAY") or variables.get("WAYLAND_DISPLAY")) and not variables.get("CI")


def version() -> str:
    """Version of the installed distribution; a bare checkout has none."""
    try:
        return importlib.metadata.version("livemimic")
    except importlib.metadata.PackageNotFoundError:
        return "0+checkout"
