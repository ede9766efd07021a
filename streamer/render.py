"""`livemimic render`: a finished file from a portrait and a voice, through the same window, sampler and decoder as the server."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np

from model.errors import ModelError
from model.presets import PUBLISHED, load_pipeline
from streamer.errors import BadInput, LivemimicError
from streamer.film import check_target, read_voice
from streamer.published_options import PUBLISHED_TASKS, refuse_published_options
from streamer.render_published import render_published
from streamer.render_rolling import refuse_live_options, render_rolling
from streamer.talk import write_talk


def run(args: argparse.Namespace) -> int:
    """Exit status 0, or 1 after a clear message."""
    try:
        _check_task(args)
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
            render_talk(
                audio=Path(args.audio), out=Path(args.out), portrait=args.portrait, preset=args.preset, weights=args.weights,
                device=args.device, steps=args.steps, seed=args.seed or 0, prompt=args.prompt or "",
            )  # fmt: skip
    except (LivemimicError, ModelError) as error:
        print(f"livemimic render: {error.message}\n  {error.hint}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nlivemimic render: stopped, nothing was written", file=sys.stderr)
        return 130
    return 0


def _check_task(args: argparse.Namespace) -> None:
    """The preset has the task, and its inputs fit it: an option that would be ignored is an error."""
    available = PUBLISHED_TASKS if args.preset in PUBLISHED else ("talk",)
    if args.task not in available:
        raise BadInput(
            "task_unavailable", f"Task {args.task!r} is not available on preset {args.preset}.", f"It has: {', '.join(available)}."
        )
    for name, task in (("video", "lipsync"), ("last_image", "flf2v")):
        if getattr(args, name) is not None and args.task != task:
            option = "--" + name.replace("_", "-")
            raise BadInput("option_of_another_task", f"{option} belongs to task {task}, not {args.task}.", f"Leave {option} out.")


def render_talk(
    *, audio: Path, out: Path, portrait: str | None, preset: str, weights: Path | None, device: str, steps: int | None, seed: int,
    prompt: str,
) -> None:  # fmt: skip
    """Everything that can be wrong is found before the model is loaded."""
    picture, sound = load_portrait(portrait), read_voice(audio)
    pipeline = load_pipeline(preset=preset, weights=weights, device=device, steps=steps)
    write_talk(pipeline, picture, sound, out, seed=seed, prompt=prompt)


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
