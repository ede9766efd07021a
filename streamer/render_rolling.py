"""`livemimic render --long-video rolling`: the published presets' live path, for a voice of any length."""

from __future__ import annotations

import argparse
from pathlib import Path

from model.errors import ConfigError
from model.portraits import open_picture, open_portrait
from model.presets import LiveOptions, load_pipeline
from streamer.errors import BadInput
from streamer.film import Film, make_film, read_voice
from streamer.live_options import LIVE_ONLY, live_options
from streamer.portraits import portrait_file
from streamer.spoken import talk_frames

OTHER_PATHS = ("sampler", "window", "teacache", "phda", "compat")


def render_rolling(args: argparse.Namespace) -> None:
    """Options, portrait and voice are checked before torch is imported."""
    if args.task != "talk":
        raise BadInput("task_unavailable", f"Task {args.task!r} has no rolling window.", "Use --task talk, or another --long-video.")
    _refuse(args, OTHER_PATHS, "has no part in --long-video rolling")
    data = portrait_file(args.portrait).read_bytes()
    # preview acts on the face, so there must be one.
    picture = open_portrait(data)[0] if args.preset == "echomimic-v3-preview" else open_picture(data)
    sound = read_voice(Path(args.audio))

    from model.echomimic.conditioning import resized
    from model.echomimic.framing import output_size

    side = LiveOptions().width if args.size is None else args.size
    try:
        options = live_options(args, output_size(picture.width, picture.height, side * side))
    except ValueError as error:
        raise ConfigError("bad_option", str(error), "livemimic render --help lists the options.") from error
    pipeline = load_pipeline(preset=args.preset, weights=args.weights, device=args.device, steps=args.steps, live=options)
    portrait = resized(picture, options.width, options.height)
    seed = 43 if args.seed is None else args.seed
    make_film(Path(args.out), lambda: Film(talk_frames(pipeline, portrait, sound, seed, ""), pipeline.geometry), sound)


def refuse_live_options(args: argparse.Namespace) -> None:
    """An option that would be ignored is an error."""
    _refuse(args, LIVE_ONLY, "belongs to --long-video rolling of the presets echomimic-v3-*")


def _refuse(args: argparse.Namespace, names: tuple[str, ...], why: str) -> None:
    for name in names:
        if getattr(args, name) not in (None, False):
            option = "--" + name.replace("_", "-")
            raise BadInput("option_of_another_path", f"{option} {why}.", f"Leave {option} out.")
