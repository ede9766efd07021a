"""Options of `livemimic render` that only the published EchoMimicV3 presets have, and the settings they make."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from model.errors import ConfigError
from model.presets import PUBLISHED
from streamer.errors import BadInput
from streamer.live_options import add_told_options

if TYPE_CHECKING:
    from model.echomimic.settings import Settings

T = TypeVar("T")  # a generic function needs Python 3.12

# As argparse names them. A number that is not given is None, a switch False.
OPTIONS = (
    "negative_prompt", "text_guidance", "audio_guidance", "sampler", "size", "window", "long_video", "teacache", "phda", "compat",
)  # fmt: skip


def add_published_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("only for the presets echomimic-v3-preview and echomimic-v3-flash (defaults: preview / flash)")
    add_told_options(group)
    group.add_argument("--sampler", choices=("flow", "unipc", "dpmpp"), help="Euler, UniPC or DPM-Solver++ 2M: flow / unipc")
    group.add_argument("--size", type=int, metavar="S", help="the picture is shrunk to an area of SxS, never enlarged: 768, rolling 512")
    group.add_argument("--window", type=int, metavar="FRAMES", help="frames that are made together: 113 / 81")
    group.add_argument(
        "--long-video", choices=("pixel", "latent", "rolling"),
        help="longer than a window: pixel continues from the last 8 frames (preview's default; nothing is known of flash here), "
        "latent denoises overlapping windows together (preview), rolling is what serve does; without it flash ends after one window",
    )  # fmt: skip
    group.add_argument("--teacache", type=float, metavar="T", help="skip steps that change less than this, 0 = none: 0 / 0.1")
    group.add_argument("--phda", action="store_true", help="weigh picture and voice by noise level as the paper's figure shows")
    group.add_argument("--compat", action="store_true", help="with the published scripts' defects: docs/echomimic_v3.md lists them")


def refuse_published_options(args: argparse.Namespace) -> None:
    """An option that would be ignored is an error."""
    for name in OPTIONS:
        if getattr(args, name) not in (None, False):
            option = "--" + name.replace("_", "-")
            raise BadInput("option_of_another_preset", f"{option} belongs to echomimic-v3-*, not {args.preset}.", f"Leave {option} out.")


def published_settings(args: argparse.Namespace) -> Settings:
    """The variant's defaults where nothing is given. Raises ConfigError naming the option and its range."""
    from model.echomimic.settings import DEFAULTS

    default = DEFAULTS[PUBLISHED[args.preset]]
    guidance = replace(
        default.guidance, text_scale=_or(args.text_guidance, default.guidance.text_scale),
        audio_scale=_or(args.audio_guidance, default.guidance.audio_scale), phda=args.phda,
    )  # fmt: skip
    if args.size is not None and not 64 <= args.size <= 2048:
        raise ConfigError("bad_option", f"--size must be 64 to 2048, got {args.size}", "768 is what the models were made for.")
    num_steps = _or(args.steps, default.num_steps)
    threshold = args.teacache or (None if args.teacache == 0 else default.cache_threshold)
    if args.teacache is None and num_steps <= default.cache_start:
        threshold = None  # a default of more steps: there is nothing to skip
    try:
        return replace(
            default, guidance=guidance, num_steps=num_steps, cache_threshold=threshold, compat=args.compat,
            sampler=_or(args.sampler, default.sampler), window_frames=_or(args.window, default.window_frames),
            long_video=_or(args.long_video, default.long_video), area=_or(args.size, 768) ** 2,
            negative=_or(args.negative_prompt, default.negative), seed=_or(args.seed, default.seed),
        )  # fmt: skip
    except ValueError as error:
        raise ConfigError("bad_option", str(error), f"livemimic render --help lists what {args.preset} takes.") from error


def _or(given: T | None, default: T) -> T:
    return default if given is None else given
