"""A session's frames for a whole recording: the chunks of the live path, one after the other, as fast as they come."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from tqdm import tqdm

from model.geometry import FRAME_SAMPLES_16K, FRAME_SAMPLES_48K
from model.presets import Pipeline
from streamer.timeline import AudioTimeline
from streamer.turns import TurnDetector


def num_frames_of(sound: np.ndarray) -> int:
    """Frames that sound at 48 kHz lasts for, the last one begun included."""
    return -(-len(sound) // FRAME_SAMPLES_48K)


def talk_frames(pipeline: Pipeline, picture: np.ndarray, sound: np.ndarray, seed: int, prompt: str) -> Iterator[np.ndarray]:
    """I420 frames of a picture of the pipeline's size, one for every 40 ms of sound (int16 at 48 kHz)."""
    return spoken_frames(pipeline, pipeline.open(picture, seed=seed, prompt=prompt), sound)


def spoken_frames(pipeline: Pipeline, state: Any, sound: np.ndarray) -> Iterator[np.ndarray]:
    """As `talk_frames`, from a session that is open."""
    geometry = pipeline.geometry
    num_frames = num_frames_of(sound)
    turns = TurnDetector()
    padded = np.pad(to_model_rate(sound), (0, geometry.step_samples_16k + geometry.chunk_samples_16k))
    for first in tqdm(range(0, num_frames, geometry.chunk_frames), desc="render", unit="chunk", disable=None):
        start = first * FRAME_SAMPLES_16K
        turns.push(padded[start : start + geometry.chunk_samples_16k])
        step_audio = padded[start : start + geometry.step_samples_16k]
        (frames,), (state,) = pipeline.step([state], [step_audio], ["speaking" if turns.speaking else "idle"])
        yield from frames[: num_frames - first]


def to_model_rate(sound: np.ndarray) -> np.ndarray:
    """48 kHz to 16 kHz, the same filter the live path uses."""
    timeline = AudioTimeline()
    timeline.write(0, sound)
    return timeline.read_model(0, -(-len(sound) // 3))
