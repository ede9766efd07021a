"""Pictures to start from: a built-in one or a file; and `livemimic portraits`: who is built in, their files, pictures of new people."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import numpy as np

from model.errors import ModelError
from model.portraits import builtin_portraits, prepare_portrait
from streamer.errors import BadInput, LivemimicError


def portrait_file(portrait: str) -> Path:
    """Of a built-in presenter by name, or of a picture."""
    names = builtin_portraits()
    path = names.get(portrait, Path(portrait))
    if not path.is_file():
        known = ", ".join(names)
        raise BadInput("unknown_portrait", f"{portrait} is neither a built-in presenter nor a file.", f"Built in are: {known}.")
    return path


def load_portrait(portrait: str | None) -> np.ndarray:
    """As the embedded preset takes it, uint8 RGB [256, 256, 3]; None takes the first built-in one."""
    return prepare_portrait(portrait_file(next(iter(builtin_portraits())) if portrait is None else portrait).read_bytes())


def run(args: argparse.Namespace) -> int:
    """Exit status 0, or 1 after a clear message."""
    try:
        if args.new:
            print(draw_new(args.head, args.seed, args.out))
        elif args.seed is not None or args.head is not None:
            raise BadInput("option_of_new", "--seed and --head belong to --new.", "Add --new, or leave them out.")
        else:
            _save_all(args.out)
    except (LivemimicError, ModelError) as error:
        print(f"livemimic portraits: {error.message}\n  {error.hint}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"livemimic portraits: cannot write to {args.out}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def _save_all(folder: Path | None) -> None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    for name, path in builtin_portraits().items():
        if folder is not None:
            shutil.copyfile(path, folder / path.name)
        print(name if folder is None else f"{name}: {folder / path.name}")


def draw_new(head: Path | None, seed: int | None, out: Path | None) -> Path:
    """The person of a seed as a PNG, drawn by the renderer that draws the training clips."""
    if seed is None or seed < 0 or out is None:
        raise BadInput("option_missing", "--new needs a --seed from 0 on and --out.", "For example --new --seed 104012 --out new.png.")
    if out.suffix.lower() != ".png" or not out.parent.is_dir():
        raise BadInput("bad_target", f"{out} must end in .png and lie in a folder that exists.", "For example --out new.png.")
    if head is None or not head.is_file():
        missing = "needs the head model" if head is None else f"finds no head model at {head}"
        raise BadInput("head_missing", f"--new {missing}.", "Make it once, as step 1 of docs/training.md says, and pass --head FILE.")
    try:
        from model.training.head import Head
        from model.training.portraits import draw, save
        from model.training.renderer import Renderer
    except ModuleNotFoundError as error:
        hint = "Install the renderer: pip install 'livemimic[train]'."
        raise BadInput("renderer_missing", f"--new needs the Python package {error.name}.", hint) from error
    try:
        packed = Head.load(head)
    except (ValueError, KeyError, OSError) as error:
        raise BadInput("head_unreadable", f"{head} is not a packed head model ({error}).", "docs/training.md, step 1, makes it.") from error
    try:
        renderer = Renderer(packed)
    except Exception as error:  # moderngl and glcontext raise bare Exception when no EGL device opens
        hint = "On Debian: apt-get install libegl1 libgl1-mesa-dri."
        raise BadInput("no_egl", f"No OpenGL can be opened to draw with ({error}).", hint) from error
    save(draw(packed, renderer, seed), out)
    return out
