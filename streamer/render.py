"""`livemimic render`: a finished file, through the same window, sampler and decoder as the server; the task says what is known of it."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from model.errors import ModelError
from model.geometry import FPS, FRAME_SAMPLES_48K, MEDIA_RATE, Geometry
from streamer.errors import BadInput, LivemimicError
from streamer.film import UNTAGGED, Colour, write_video
from streamer.render_published import PUBLISHED, render_published
from streamer.speech_file import decode_speech
from streamer.spoken import num_frames_of, spoken_frames

if TYPE_CHECKING:
    from model.pipeline import AvatarPipeline

_MAX_S = 6 * 3600.0
_SUFFIXES = (".mp4", ".mkv", ".mov")


@dataclass(frozen=True, slots=True)
class _Inputs:
    """Which options a task needs and which it may have besides --out, --seed and those of the model."""

    needs: tuple[str, ...]
    may: tuple[str, ...] = ()


# A clip without a voice lasts for --seconds; where both are possible, one of the two is needed.
_TASKS = {
    "talk": _Inputs(needs=("audio",), may=("portrait", "prompt")),
    "i2v": _Inputs(needs=("seconds",), may=("portrait", "prompt")),
    "flf2v": _Inputs(needs=("portrait", "last"), may=("audio", "seconds", "prompt")),
    "t2v": _Inputs(needs=("prompt",), may=("audio", "seconds")),
    "lipsync": _Inputs(needs=("audio", "video")),
}


class Film(NamedTuple):
    """What is written: I420 frames as they come, their size and how their numbers mean colours."""

    frames: Iterator[np.ndarray]
    geometry: Geometry
    colour: Colour = UNTAGGED


# A task reads and checks its inputs, then waits for the model: what is wrong is said before seconds go into loading it.
Scene = Callable[["AvatarPipeline"], Film]


def run(args: argparse.Namespace) -> int:
    """Exit status 0, or 1 after a clear message."""
    try:
        check_options(args)
        check_target(Path(args.out))
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(args.threads)  # read when torch is imported
        (render_large if args.preset in PUBLISHED else render)(args)
    except (LivemimicError, ModelError) as error:
        print(f"livemimic render: {error.message}\n  {error.hint}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nlivemimic render: stopped, nothing was written", file=sys.stderr)
        return 130
    return 0


def check_options(args: argparse.Namespace) -> None:
    """An option that is missing, or that would be ignored, is an error."""
    inputs = _TASKS[args.task]
    given = {name for name in ("audio", "seconds", "portrait", "last", "video", "prompt") if getattr(args, name) is not None}
    for name in inputs.needs:
        if name not in given:
            raise BadInput("option_missing", f"--{name} is needed for task {args.task}.", "See livemimic render --help.")
    for name in sorted(given - {*inputs.needs, *inputs.may}):
        owners = " and ".join(task for task, other in _TASKS.items() if name in (*other.needs, *other.may))
        raise BadInput("option_of_another_task", f"--{name} belongs to {owners}, not {args.task}.", f"Leave --{name} out.")
    if len(given & {"audio", "seconds"}) != 1:
        raise BadInput("no_length", f"Task {args.task} needs either --audio or --seconds.", "One of them says how long the video is.")
    if args.seconds is not None and not 1 / FPS <= args.seconds <= _MAX_S:
        raise BadInput("bad_length", f"--seconds must be {1 / FPS} to {_MAX_S:.0f}, got {args.seconds}.", "For example --seconds 8.")
    if args.preset in PUBLISHED and args.task != "talk":
        raise BadInput("task_unavailable", f"Task {args.task!r} is not available with {args.preset} yet.", "Use --task talk.")


def check_target(out: Path) -> None:
    if out.suffix.lower() not in _SUFFIXES:
        raise BadInput("bad_suffix", f"{out} needs one of the endings {', '.join(_SUFFIXES)}.", "For example --out talk.mp4.")
    if not out.parent.is_dir():
        raise BadInput("no_such_folder", f"The folder {out.parent} does not exist.", "Create it, or choose another --out.")


def render(args: argparse.Namespace) -> None:
    """With the embedded preset."""
    sound = load_sound(args)
    scene = _SCENES[args.task](args, sound)
    from model.pipeline import AvatarPipeline  # torch takes a second to import: not for an error message

    pipeline = AvatarPipeline.load(args.preset, weights=args.weights, device=args.device, steps=args.steps)
    began = time.perf_counter()
    film = scene(pipeline)
    write_video(Path(args.out), film.frames, sound if args.audio else None, film.geometry, film.colour)
    seconds, spent = len(sound) / MEDIA_RATE, time.perf_counter() - began
    print(f"{args.out}: {seconds:.1f} s of video in {spent:.1f} s ({spent / seconds:.2f} s a second)")


def _one_picture(args: argparse.Namespace, sound: np.ndarray) -> Scene:
    """Talk and image to video: the portrait moves as sound, prompt and seed say."""
    return _animated(args.portrait, args, sound)


def _animated(portrait: str | None, args: argparse.Namespace, sound: np.ndarray) -> Scene:
    picture = load_portrait(portrait)
    return lambda pipeline: Film(talk_frames(pipeline, picture, sound, args.seed, args.prompt or ""), pipeline.geometry)


def _described(args: argparse.Namespace, sound: np.ndarray) -> Scene:
    """Text to video: as above, with the built-in presenter whom the prompt describes."""
    from model.casting import cast

    presenter = cast(args.prompt, args.seed)
    print(f"presenter: {presenter}")
    return _animated(presenter, args, sound)


def _two_pictures(args: argparse.Namespace, sound: np.ndarray) -> Scene:
    """First and last frame."""
    first, last = load_portrait(args.portrait), load_portrait(args.last)

    def scene(pipeline: AvatarPipeline) -> Film:
        state = pipeline.open_between(first, last, num_frames_of(sound), seed=args.seed, prompt=args.prompt or "")
        return Film(spoken_frames(pipeline, state, sound), pipeline.geometry)

    return scene


def _video(args: argparse.Namespace, sound: np.ndarray) -> Scene:
    """Lip-sync: a clip whose mouth is made anew."""
    from streamer.lipsync import FramedClip, lipsync_frames
    from streamer.video_file import read_video

    clip = read_video(args.video, num_frames_of(sound))
    framed = FramedClip(clip)
    geometry = Geometry(width=clip.width, height=clip.height)
    return lambda pipeline: Film(lipsync_frames(pipeline, framed, sound, args.seed), geometry, clip.colour)


_SCENES = {"talk": _one_picture, "i2v": _one_picture, "t2v": _described, "flf2v": _two_pictures, "lipsync": _video}


def render_large(args: argparse.Namespace) -> None:
    """With the published weights."""
    render_published(
        sound=load_sound(args), out=Path(args.out), portrait=args.portrait, preset=args.preset, weights=args.weights,
        device=args.device, steps=args.steps, seed=args.seed, prompt=args.prompt or "",
    )  # fmt: skip


def load_sound(args: argparse.Namespace) -> np.ndarray:
    """int16 at 48 kHz: the voice, or as much silence as was asked for."""
    if args.audio is None:
        return np.zeros(round(args.seconds * FPS) * FRAME_SAMPLES_48K, dtype=np.int16)
    audio = Path(args.audio)
    if not audio.is_file():
        raise BadInput("no_such_file", f"{audio} does not exist.", "Check the path of --audio.")
    with audio.open("rb") as file:
        return decode_speech(file, max_s=_MAX_S)


def load_portrait(portrait: str | None) -> np.ndarray:
    """A built-in presenter by name, or a picture file; None takes the first built-in one. uint8 RGB [256, 256, 3]."""
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
    return spoken_frames(pipeline, pipeline.open(picture, seed=seed, prompt=prompt), sound)
