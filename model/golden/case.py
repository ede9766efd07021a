"""What one comparison says, and reading a golden folder's files.

A folder holds `NAME.json` (configuration), `NAME.weights.safetensors` and `NAME.cases.safetensors`, or one file of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

STATISTICS = 1e-4  # tolerance of whole networks in float32


@dataclass(frozen=True, slots=True)
class Result:
    """`error` is the largest difference over the largest expected value (1.0 for exact comparisons that fail)."""

    file: str
    case: str
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return self.error <= self.tolerance  # a NaN is not


Check = Callable[[Path], Iterator[Result]]


def compare(file: str, case: str, got: Tensor, expected: Tensor, tolerance: float) -> Result:
    if got.shape != expected.shape:
        return Result(file, f"{case} (shape {tuple(got.shape)}, expected {tuple(expected.shape)})", float("inf"), tolerance)
    if torch.equal(got.double(), expected.double()):  # infinities too: the loudness of silence
        return Result(file, case, 0.0, tolerance)
    difference, largest = (got.double() - expected.double()).abs().max(), expected.double().abs().max()
    return Result(file, case, float(difference / largest) if largest else float(difference), tolerance)


def exact(file: str, case: str, got: Any, expected: Any) -> Result:
    return Result(file, case, 0.0 if got == expected else 1.0, 0.0)


def read_json(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / f"{name}.json").read_text())


def read_tensors(folder: Path, name: str) -> dict[str, Tensor]:
    return load_file(folder / f"{name}.safetensors")


def under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors below a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def loaded(module: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    module.load_state_dict(weights)
    return module.eval().requires_grad_(False)
