"""A voice through a loaded pipeline, chunk by chunk as the server does it, into a film."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from model.geometry import FPS, MEDIA_RATE, MODEL_RATE
from model.presets import Pipeline
from streamer.film import to_model_rate, write_video
from streamer.turns import TurnDetector


def write_talk(pipeline: Pipeline, picture: np.ndarray, sound: np.ndarray, out: Path, *, seed: int, prompt: str) -> None:
    """`picture` of the pipeline's size, `sound` int16 at 48 kHz."""
    began = time.perf_counter()
    write_video(out, talk_frames(pipeline, picture, sound, seed, prompt), sound, pipeline.geometry)
    seconds = len(sound) / MEDIA_RATE
    spent = time.perf_counter() - began
    print(f"{out}: {seconds:.1f} s of video in {spent:.1f} s ({spent / seconds:.2f} s a second)")


def talk_frames(pipeline: Pipeline, picture: np.ndarray, sound: np.ndarray, seed: int, prompt: str) -> Iterator[np.ndarray]:
    """I420 frames, one for every 40 ms of sound."""
    geometry = pipeline.geometry
    voice = to_model_rate(sound)
    num_frames = -(-len(sound) // (MEDIA_RATE // FPS))
    turns = TurnDetector()
    state = pipeline.open(picture, seed=seed, prompt=prompt)
    padded = np.pad(voice, (0, geometry.step_samples_16k + geometry.chunk_samples_16k))
    for first in tqdm(range(0, num_frames, geometry.chunk_frames), desc="render", unit="chunk", disable=None):
        start = first * MODEL_RATE // FPS
        turns.push(padded[start : start + geometry.chunk_samples_16k])
        step_audio = padded[start : start + geometry.step_samples_16k]
        (frames,), (state,) = pipeline.step([state], [step_audio], ["speaking" if turns.speaking else "idle"])
        yield from frames[: num_frames - first]
