"""Launch parameters by case: the defaults beside a kernel, or what was measured to be faster on one kind of GPU.

A file NAME.json in this folder serves the devices whose name has that word: h200.json an "NVIDIA H200". It is written by

    python tests/benchmarks/tune_kernels.py

on such a device, from measurements only, and says which run produced it. Without a file the defaults hold everywhere. Every
parameter set of every file is compiled for sm_90 by the tests, as the defaults are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

Parameters = dict[str, int]  # num_warps, num_stages and the block sizes of a kernel, by the names of its arguments
FOLDER = Path(__file__).parent


def parameters(operation: str, defaults: dict[str, Parameters]) -> dict[str, Parameters]:
    """The table of an operation by case, for the current CUDA device; the defaults where nothing was measured."""
    table = dict(defaults)
    if torch.cuda.is_available():
        words = re.split(r"\W+", torch.cuda.get_device_name().lower())
        for path in _files():
            if path.stem in words:
                table |= measured(path, operation, defaults)
    return table


def every(operation: str, defaults: dict[str, Parameters]) -> Iterator[tuple[str, Parameters]]:
    """All pairs of case and parameters that any device may be given."""
    yield from defaults.items()
    for path in _files():
        yield from measured(path, operation, defaults).items()


def measured(path: Path, operation: str, defaults: dict[str, Parameters]) -> dict[str, Parameters]:
    """What a file has about an operation. Raises ValueError where it does not fit the kernels, or was not measured."""
    report: dict[str, Any] = json.loads(path.read_text())
    if report.get("measurement") is not True:
        raise ValueError(f"{path.name} holds no measurement: tuned parameters come from a run on the device itself")
    found: dict[str, Parameters] = {}
    for case, entry in report["operations"].get(operation, {}).items():
        given = entry["parameters"]
        if case not in defaults or given.keys() != defaults[case].keys():
            raise ValueError(f"{path.name}: {operation} has {defaults}, the file gives {case!r}: {given}")
        found[case] = given
    return found


def _files() -> list[Path]:
    return sorted(FOLDER.glob("*.json"))
