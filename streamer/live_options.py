"""Options of the published presets' live path: of `livemimic serve`, of `bench`, and of `render --long-video rolling`."""

from __future__ import annotations

import argparse
from pathlib import Path

from model.presets import PUBLISHED, LiveOptions

# As argparse names them; None where not given. The first ones are the live path's alone, the others `render` has for all of its paths.
LIVE_ONLY = ("adapter", "tiny_decoder", "attention", "context", "new", "compile")
SHARED = ("prompt", "negative_prompt", "text_guidance", "audio_guidance")


def add_live_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("live with the presets echomimic-v3-*")
    group.add_argument("--adapter", type=Path, metavar="FILE", help="LoRA of a causal few-step student, merged when loaded")
    group.add_argument("--tiny-decoder", type=Path, metavar="FILE", help="taew2_1.pth: decodes 25 times faster than the full one, softer")
    group.add_argument(
        "--attention", choices=("bidirectional", "causal"),
        help="bidirectional computes the whole window for every chunk, causal each latent frame once (default: causal with --adapter)",
    )  # fmt: skip
    group.add_argument("--context", type=int, metavar="N", help="latent frames of 160 ms that a chunk continues from (default: 2)")
    group.add_argument("--new", type=int, metavar="N", help="latent frames a chunk, if not causal (default: 3)")
    group.add_argument("--compile", choices=("off", "on", "graphs"), help="torch.compile, or with CUDA graphs too (default: off)")


def add_served_options(parser: argparse.ArgumentParser) -> None:
    """What `render` has under the same names for all of its paths."""
    group = parser.add_argument_group("told to the presets echomimic-v3-*")
    group.add_argument("--size", type=int, metavar="S", help="pictures of SxS pixels, a multiple of 16 (default: 512)")
    group.add_argument("--prompt", metavar="TEXT", help="a sentence about what is seen")
    add_told_options(group)


def add_told_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--negative-prompt", metavar="TEXT", help="what should not be seen; flash does not read it")
    group.add_argument("--text-guidance", type=float, metavar="G", help="4.0 / only a switch: 1 or less turns guidance off")
    group.add_argument("--audio-guidance", type=float, metavar="A", help="how far the lips follow the voice: 2.9 / 3.0")


def live_options(args: argparse.Namespace, size: tuple[int, int]) -> LiveOptions:
    """For a picture of this width and height. Raises ValueError with option, value and range."""
    given = {name: value for name in (*LIVE_ONLY, *SHARED) if (value := getattr(args, name)) is not None}
    return LiveOptions(width=size[0], height=size[1], **given)


def served_options(args: argparse.Namespace) -> LiveOptions:
    """Of a server or benchmark: square pictures. Raises ValueError for an option that the preset does not have."""
    if args.preset in PUBLISHED:
        side = LiveOptions().width if args.size is None else args.size
        return live_options(args, (side, side))
    for name in ("size", *LIVE_ONLY, *SHARED):
        if getattr(args, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} belongs to the presets echomimic-v3-*, not to {args.preset}")
    return LiveOptions()
