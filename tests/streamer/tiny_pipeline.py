"""A stand-in for the model: numpy only, deterministic, its picture's brightness follows the loudness of the chunk.

State is a counter and the seed, so that a test can see from the pixels which state a chunk went on from. Environment
variables, which a spawned worker inherits, make it slow or make it fail.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.geometry import Geometry

FACTORY = "tests.streamer.tiny_pipeline:load"
QUIET_LUMA = 60
BAD_PORTRAIT = 13  # a portrait of this value everywhere is refused
CRASH_PEAK = 30000  # a chunk this loud kills the process, when TINY_CRASH is set


@dataclass(frozen=True, slots=True)
class TinyState:
    seed: int
    num_chunks: int


def luma_of(audio: np.ndarray, chunk_samples: int) -> int:
    """Brightness of the chunk: rises with the mean amplitude of its own audio, look-ahead excluded."""
    loudness = float(np.abs(audio[:chunk_samples].astype(np.float32)).mean())
    return QUIET_LUMA + min(150, int(loudness / 40))


class TinyPipeline:
    """Implements `model.presets.Pipeline`."""

    geometry = Geometry()

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self.batches: list[int] = []

    def open(self, portrait: np.ndarray, *, seed: int = 0) -> TinyState:
        if (portrait == BAD_PORTRAIT).all():
            raise ValueError("the tiny pipeline does not like this portrait")
        return TinyState(seed, 0)

    def step(
        self, states: Sequence[TinyState], audio: Sequence[np.ndarray], activity: Sequence[str]
    ) -> tuple[list[np.ndarray], list[TinyState]]:
        self.batches.append(len(states))
        time.sleep(self._step_s)
        rows, columns = self.geometry.i420_shape
        frames = []
        for state, samples in zip(states, audio, strict=True):
            if os.environ.get("TINY_CRASH") and int(np.abs(samples.astype(np.int32)).max()) >= CRASH_PEAK:
                os.kill(os.getpid(), signal.SIGKILL)
            picture = np.full((self.geometry.chunk_frames, rows, columns), 128, dtype=np.uint8)
            picture[:, : self.geometry.height] = luma_of(samples, self.geometry.chunk_samples_16k)
            picture[:, 128:136, 0:8] = state.num_chunks % 256
            picture[:, 128:136, 8:16] = state.seed % 256
            frames.append(picture)
        return frames, [TinyState(state.seed, state.num_chunks + 1) for state in states]


def load(**options: object) -> TinyPipeline:
    """Takes the keywords of the real factory; `weights` named "missing" cannot be loaded."""
    if str(options.get("weights")) == "missing":
        raise FileNotFoundError("no weights at 'missing'")
    return TinyPipeline(float(os.environ.get("TINY_STEP_MS", "10")) / 1000)
