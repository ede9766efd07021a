"""Manifests: every tensor of a published file by name and shape, against what our modules make of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from model.echomimic.clip import ClipConfig
from model.echomimic.config import EchoMimicConfig, WanVAEConfig
from model.echomimic.published import Shapes, clip_shapes, dit_shapes, text_shapes, vae_shapes
from model.echomimic.umt5 import TextConfig
from model.golden.case import Result, exact

SHAPES: dict[str, Callable[[], Shapes]] = {
    "manifest_preview": lambda: dit_shapes(EchoMimicConfig(variant="preview")),
    "manifest_flash": lambda: dit_shapes(EchoMimicConfig(variant="flash")),
    "manifest_vae": lambda: vae_shapes(WanVAEConfig()),
    "manifest_clip": lambda: clip_shapes(ClipConfig()),
    "manifest_t5": lambda: text_shapes(TextConfig()),
}


def check_manifest(path: Path) -> Iterator[Result]:
    expected = {name: tuple(shape) for name, (shape, _) in json.loads(path.read_text()).items()}
    yield exact(path.stem, f"{len(expected)} names and shapes", SHAPES[path.stem](), expected)
