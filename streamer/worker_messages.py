"""Messages between the media process and the worker process: small frozen dataclasses over a multiprocessing
Connection.

Portraits, audio and frames never travel in a message but in a slot of the shared arena, so that no write ever fills
the pipe and blocks the event loop. Every message that names a slot is answered by exactly one message with the same
slot; this is what makes a leak of slots impossible. Times are `time.monotonic()` seconds, one clock for both
processes.
"""

from __future__ import annotations

from dataclasses import dataclass

from model.geometry import Geometry

INITIAL = -1  # `base_chunk` of a step that goes on from the state right after `Open`


@dataclass(frozen=True, slots=True)
class Attach:
    """Names the shared arena; sent once, after Loaded has told the geometry."""

    arena_name: str
    num_slots: int


@dataclass(frozen=True, slots=True)
class Open:
    """Starts a session from the prepared portrait in the slot. Answer: Opened, or Failed."""

    session: str
    slot: int
    seed: int


@dataclass(frozen=True, slots=True)
class Step:
    """Generates one chunk from the audio in the slot, going on from the state after `base_chunk`.

    A rewind needs no message of its own: it is a step that names an older base. Answer: Frames, Dropped or Failed.
    """

    session: str
    epoch: int
    chunk_index: int
    base_chunk: int
    activity: str
    deadline_s: float
    slot: int


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Steps of this session with an older epoch that have not started are dropped."""

    session: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Close:
    """Forgets the session; its waiting steps are dropped."""

    session: str


@dataclass(frozen=True, slots=True)
class Warmup:
    """Measures steps of growing batch size until one takes longer than a chunk lasts. Answer: Warmed."""

    repeats: int
    max_batch: int


Request = Attach | Open | Step | Interrupt | Close | Warmup


@dataclass(frozen=True, slots=True)
class Loaded:
    """The pipeline is in memory: the first message of a worker."""

    geometry: Geometry
    load_s: float


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The pipeline could not be built: the last message of a worker."""

    error: str


@dataclass(frozen=True, slots=True)
class Warmed:
    step_ms: dict[int, list[float]]  # per batch size


@dataclass(frozen=True, slots=True)
class Opened:
    session: str
    slot: int


@dataclass(frozen=True, slots=True)
class Frames:
    """The chunk's frames are in the slot."""

    session: str
    epoch: int
    chunk_index: int
    slot: int
    step_ms: float
    batch: int


@dataclass(frozen=True, slots=True)
class Dropped:
    session: str
    epoch: int
    chunk_index: int
    slot: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The request could not be done; `chunk_index` is INITIAL when it was an Open."""

    session: str
    chunk_index: int
    slot: int
    error: str


Reply = Loaded | LoadFailed | Warmed | Opened | Frames | Dropped | Failed
