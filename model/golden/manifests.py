"""Manifests: every tensor of a published file by name and shape, against the modules on the meta device."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from torch import nn

from model.echomimic.config import EchoMimicConfig, WanVAEConfig
from model.echomimic.dit import EchoMimicDiT
from model.echomimic.vae import WanVAE
from model.golden.case import Result, manifest_result

BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "manifest_preview": lambda: EchoMimicDiT(EchoMimicConfig(variant="preview")),
    "manifest_flash": lambda: EchoMimicDiT(EchoMimicConfig(variant="flash")),
    "manifest_vae": lambda: WanVAE(WanVAEConfig()),
}


def check_manifest(path: Path) -> Iterator[Result]:
    yield manifest_result(path.stem, json.loads(path.read_text()), BUILDERS[path.stem])
