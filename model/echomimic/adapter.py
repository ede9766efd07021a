"""A low-rank adapter (LoRA, arXiv 2106.09685) merged into the transformer's weights as they are loaded: W + scale * B A.

Reads the common names, `lora_A`/`lora_B` and `lora_down`/`lora_up`, with or without `alpha` (scale = alpha / rank, else 1), and the
ways in which tools write a layer's place: prefixed, or with underscores for dots. Everything is compared with the
transformer's shapes before a value is read.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from model.echomimic.published import Shapes
from model.echomimic.tensor_file import TensorFile
from model.errors import CheckpointError

PREFIXES = ("base_model.model.", "diffusion_model.", "transformer.", "model.", "lora_unet_", "_")
_KEY = re.compile(r"(?P<layer>.+?)\.(?P<part>lora_A|lora_B|lora_down|lora_up|alpha)(\.default)?(\.weight)?")
_SIDES = {"lora_A": "down", "lora_down": "down", "lora_B": "up", "lora_up": "up", "alpha": "alpha"}
_NOT_OURS = "The adapter must be a LoRA of this variant's transformer; only its linear layers can be adapted."


class _Layer(NamedTuple):
    """Keys in the file: down [rank, in], up [out, rank], alpha a number."""

    down: str
    up: str
    alpha: str | None


class Adapter:
    """Raises CheckpointError naming the file and the first key that does not fit."""

    def __init__(self, path: Path, transformer: Shapes) -> None:
        self._file = TensorFile(path)
        self._shapes = self._file.shapes()
        self._layers = self._read(transformer)

    def merged(self, name: str, weight: Tensor) -> Tensor:
        """The weight with its update, computed in float32 and returned in the weight's own precision."""
        layer = self._layers.get(name)
        if layer is None:
            return weight
        values = dict(self._file.values([key for key in layer if key is not None]))
        down, up = values[layer.down].float(), values[layer.up].float()
        scale = 1.0 if layer.alpha is None else float(values[layer.alpha]) / len(down)
        return (weight.float() + scale * (up @ down).to(weight.device)).to(weight.dtype)

    def _read(self, transformer: Shapes) -> dict[str, _Layer]:
        places = {name.removesuffix(".weight").replace(".", "_"): name for name, shape in transformer.items() if _is_linear(name, shape)}
        found: dict[str, dict[str, str]] = {}
        for key in self._shapes:
            match = _KEY.fullmatch(key)
            place = places.get(_bare(match["layer"])) if match else None
            if match is None or place is None:
                raise self._wrong(key, "belongs to no linear layer of the transformer")
            if found.setdefault(place, {}).setdefault(_SIDES[match["part"]], key) != key:
                raise self._wrong(key, "is there twice")
        if not found:
            raise CheckpointError("weights_mismatch", f"{self._file.path}: holds no tensors", _NOT_OURS)
        return {place: self._layer(parts, transformer[place]) for place, parts in found.items()}

    def _layer(self, parts: dict[str, str], shape: tuple[int, ...]) -> _Layer:
        for side, other in (("down", "up"), ("up", "down")):
            if side not in parts:
                raise self._wrong(next(iter(parts.values())), f"has no {side} side beside it" if other in parts else "stands alone")
        down, up = self._shapes[parts["down"]], self._shapes[parts["up"]]
        if len(down) != 2 or down[1] != shape[1]:
            raise self._wrong(parts["down"], f"is {down}, needs (rank, {shape[1]})")
        if up != (shape[0], down[0]):
            raise self._wrong(parts["up"], f"is {up}, needs {(shape[0], down[0])}")
        if "alpha" in parts and self._shapes[parts["alpha"]] not in ((), (1,)):
            raise self._wrong(parts["alpha"], f"is {self._shapes[parts['alpha']]}, needs one number")
        return _Layer(parts["down"], parts["up"], parts.get("alpha"))

    def _wrong(self, key: str, what: str) -> CheckpointError:
        return CheckpointError("weights_mismatch", f"{self._file.path}: {key} {what}", _NOT_OURS)


def _is_linear(name: str, shape: tuple[int, ...]) -> bool:
    return name.endswith(".weight") and len(shape) == 2


def _bare(layer: str) -> str:
    """A layer's place with underscores for dots and without what tools put before it."""
    while prefix := next((p for p in PREFIXES if layer.startswith(p)), None):
        layer = layer.removeprefix(prefix)
    return layer.replace(".", "_")
