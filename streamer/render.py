"""`livemimic render`: a finished file from a portrait and a voice, through the same window, sampler and decoder as the server."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
from tqdm import tqdm

from model.errors import ModelError
from model.geometry import FPS, MEDIA_RATE, MODEL_RATE, Geometry
from streamer.errors import BadInput, LivemimicError
from streamer.render_published import PUBLISHED, render_published
from streamer.speech_file import decode_speech
from streamer.turns import TurnDetector

if TYPE_CHECKING:
    from model.pipeline import AvatarPipeline

logger = logging.getLogger(__name__)
_MAX_S = 6 * 3600.0
_SUFFIXES = (".mp4", ".mkv", ".mov")


def run(args: argparse.Namespace) -> int:
    """Exit status 0, or 1 after a clear message."""
    try:
        render_talk(
            audio=Path(args.audio), out=Path(args.out), portrait=args.portrait, preset=args.preset, weights=args.weights,
            device=args.device, steps=args.steps, seed=args.seed, prompt=args.prompt or "", task=_task(args), threads=args.threads,
        )  # fmt: skip
    except (LivemimicError, ModelError) as error:
        print(f"livemimic render: {error.message}\n  {error.hint}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nlivemimic render: stopped, nothing was written", file=sys.stderr)
        return 130
    return 0


def _task(args: argparse.Namespace) -> str:
    """The task, if its inputs fit it: an option that would be ignored is an error."""
    for name, task in (("video", "lipsync"), ("last_image", "flf2v")):
        if getattr(args, name) is not None and args.task != task:
            option = "--" + name.replace("_", "-")
            raise BadInput("option_of_another_task", f"{option} belongs to task {task}, not {args.task}.", f"Leave {option} out.")
    return str(args.task)


def render_talk(
    *, audio: Path, out: Path, portrait: str | None, preset: str, weights: Path | None, device: str, steps: int | None, seed: int,
    prompt: str, task: str, threads: int = 1,
) -> None:  # fmt: skip
    """Everything that can be wrong is found before the model is loaded."""
    if task != "talk":
        raise BadInput("task_unavailable", f"Task {task!r} is not available on this preset yet.", "Use --task talk.")
    if out.suffix.lower() not in _SUFFIXES:
        raise BadInput("bad_suffix", f"{out} needs one of the endings {', '.join(_SUFFIXES)}.", "For example --out talk.mp4.")
    if not out.parent.is_dir():
        raise BadInput("no_such_folder", f"The folder {out.parent} does not exist.", "Create it, or choose another --out.")
    picture = None if preset in PUBLISHED else load_portrait(portrait)
    if not audio.is_file():
        raise BadInput("no_such_file", f"{audio} does not exist.", "Check the path of --audio.")
    with audio.open("rb") as file:
        sound = decode_speech(file, max_s=_MAX_S)
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)  # read when torch is imported
    if picture is None:
        render_published(
            sound=sound, out=out, portrait=portrait, preset=preset, weights=weights, device=device, steps=steps, seed=seed,
            prompt=prompt,
        )  # fmt: skip
        return
    from model.pipeline import AvatarPipeline  # torch takes a second to import: not for an error message

    pipeline = AvatarPipeline.load(preset, weights=weights, device=device, steps=steps)
    began = time.perf_counter()
    frames = talk_frames(pipeline, picture, sound, seed, prompt)
    write_video(out, frames, sound, pipeline.geometry)
    seconds = len(sound) / MEDIA_RATE
    spent = time.perf_counter() - began
    print(f"{out}: {seconds:.1f} s of video in {spent:.1f} s ({spent / seconds:.2f} s a second)")


def load_portrait(portrait: str | None) -> np.ndarray:
    """A built-in presenter by name, or a picture file; None takes the first built-in one."""
    from model.portraits import builtin_portraits, prepare_portrait

    names = builtin_portraits()
    if portrait is None:
        portrait = next(iter(names))
    path = names.get(portrait, Path(portrait))
    if not path.is_file():
        known = ", ".join(names)
        raise BadInput("unknown_portrait", f"{portrait} is neither a built-in presenter nor a file.", f"Built in are: {known}.")
    return prepare_portrait(path.read_bytes())


def talk_frames(pipeline: AvatarPipeline, picture: np.ndarray, sound: np.ndarray, seed: int, prompt: str) -> Iterator[np.ndarray]:
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


def to_model_rate(sound: np.ndarray) -> np.ndarray:
    """48 kHz to 16 kHz, the same filter the live path uses."""
    from streamer.timeline import AudioTimeline

    timeline = AudioTimeline()
    timeline.write(0, sound)
    return timeline.read_model(0, -(-len(sound) // 3))


def write_video(out: Path, frames: Iterator[np.ndarray], sound: np.ndarray, geometry: Geometry) -> None:
    """H.264 and AAC. Written beside `out` and renamed at the end, so that a stop leaves no broken file."""
    partial = out.with_name(f".{out.stem}.partial{out.suffix}")
    try:
        with av.open(str(partial), "w") as container:
            video = container.add_stream("libx264", rate=geometry.fps, options={"crf": "16", "preset": "veryfast"})
            video.width, video.height, video.pix_fmt = geometry.width, geometry.height, "yuv420p"
            video.codec_context.time_base = Fraction(1, geometry.fps)
            video.codec_context.thread_count = 1
            voice = container.add_stream("aac", rate=MEDIA_RATE, layout="mono")
            voice.bit_rate = 128_000
            spacing = MEDIA_RATE // geometry.fps
            for index, picture in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
                frame.pts = index
                container.mux(video.encode(frame))
                container.mux(voice.encode(_audio_frame(sound[index * spacing : (index + 1) * spacing], index * spacing)))
            container.mux(video.encode(None))
            container.mux(voice.encode(None))
        partial.rename(out)
    finally:
        partial.unlink(missing_ok=True)


def _audio_frame(samples: np.ndarray, pts: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = MEDIA_RATE, pts, Fraction(1, MEDIA_RATE)
    return frame
