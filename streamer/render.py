"""`livemimic render`: a finished file, through the same window, sampler and decoder as the server; the task says what is known of it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from model.errors import ModelError
from model.geometry import FPS, FRAME_SAMPLES_48K, Geometry
from model.presets import PUBLISHED
from streamer.errors import LivemimicError
from streamer.film import Film, check_target, make_film, read_voice
from streamer.portraits import load_portrait
from streamer.published_options import refuse_published_options
from streamer.render_published import render_published
from streamer.render_rolling import refuse_live_options, render_rolling
from streamer.render_tasks import check_inputs
from streamer.spoken import num_frames_of, spoken_frames, talk_frames

if TYPE_CHECKING:
    from model.pipeline import AvatarPipeline

# A task reads and checks its inputs, then waits for the model: what is wrong is said before seconds go into loading it.
Scene = Callable[["AvatarPipeline"], Film]


def run(args: argparse.Namespace) -> int:
    """Exit status 0, or 1 after a clear message."""
    try:
        check_inputs(args)
        check_target(Path(args.out))
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(args.threads)  # read when torch is imported
        if args.long_video == "rolling" and args.preset in PUBLISHED:
            render_rolling(args)
        elif args.preset in PUBLISHED:
            refuse_live_options(args)
            render_published(args)
        else:
            refuse_live_options(args)
            refuse_published_options(args)
            render_presenter(args)
    except (LivemimicError, ModelError) as error:
        print(f"livemimic render: {error.message}\n  {error.hint}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nlivemimic render: stopped, nothing was written", file=sys.stderr)
        return 130
    return 0


def render_presenter(args: argparse.Namespace) -> None:
    """With the embedded preset."""
    sound = _silence(args.seconds) if args.audio is None else read_voice(Path(args.audio))
    scene = _SCENES[args.task](args, sound, args.seed or 0)
    from model.pipeline import AvatarPipeline  # torch takes a second to import: not for an error message

    pipeline = AvatarPipeline.load(weights=args.weights, device=args.device, steps=args.steps)
    make_film(Path(args.out), lambda: scene(pipeline), sound, silent=args.audio is None)


def _silence(seconds: float) -> np.ndarray:
    """As whole frames, int16 at 48 kHz."""
    return np.zeros(round(seconds * FPS) * FRAME_SAMPLES_48K, dtype=np.int16)


def _one_picture(args: argparse.Namespace, sound: np.ndarray, seed: int) -> Scene:
    """Talk and image to video: the portrait moves as sound, prompt and seed say."""
    return _animated(args.portrait, args.prompt, sound, seed)


def _animated(portrait: str | None, prompt: str | None, sound: np.ndarray, seed: int) -> Scene:
    picture = load_portrait(portrait)
    return lambda pipeline: Film(talk_frames(pipeline, picture, sound, seed, prompt or ""), pipeline.geometry)


def _described(args: argparse.Namespace, sound: np.ndarray, seed: int) -> Scene:
    """Text to video: as above, with the built-in presenter whom the prompt describes."""
    from model.casting import cast

    presenter = cast(args.prompt, seed)
    print(f"presenter: {presenter}")
    return _animated(presenter, args.prompt, sound, seed)


def _two_pictures(args: argparse.Namespace, sound: np.ndarray, seed: int) -> Scene:
    """First and last frame."""
    first, last = load_portrait(args.portrait), load_portrait(args.last)

    def scene(pipeline: AvatarPipeline) -> Film:
        state = pipeline.open_between(first, last, num_frames_of(sound), seed=seed, prompt=args.prompt or "")
        return Film(spoken_frames(pipeline, state, sound), pipeline.geometry)

    return scene


def _video(args: argparse.Namespace, sound: np.ndarray, seed: int) -> Scene:
    """Lip-sync: a clip whose mouth is made anew."""
    from streamer.lipsync import FramedClip, lipsync_frames
    from streamer.video_file import read_video

    clip = read_video(args.video, num_frames_of(sound))
    framed = FramedClip(clip)
    geometry = Geometry(width=clip.width, height=clip.height)
    return lambda pipeline: Film(lipsync_frames(pipeline, framed, sound, seed), geometry, clip.colour)


_SCENES = {"talk": _one_picture, "i2v": _one_picture, "t2v": _described, "flf2v": _two_pictures, "lipsync": _video}
