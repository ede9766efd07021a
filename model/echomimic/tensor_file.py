"""One file of tensors, safetensors or a torch pickle: names and shapes first, values when they are wanted.

Both kinds are memory-mapped: opening reads a header, and a value costs memory only where it is cast or moved. Pickles are read
with `weights_only`: they cannot run code.
"""

from __future__ import annotations

import pickle
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from model.echomimic.published import Shapes
from model.errors import CheckpointError

DAMAGED = "The file is damaged or not complete: fetch it again."
FOREIGN = "It is not the file of this model: see docs/echomimic_v3.md for where each one comes from."


class TensorFile:
    """Raises CheckpointError, naming the file, when it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._source: Any = _open_safetensors(path) if path.suffix == ".safetensors" else _open_pickle(path)
        except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise CheckpointError("weights_unreadable", f"{path}: {' '.join(str(error).split())[:300]}", DAMAGED) from error

    def shapes(self) -> Shapes:
        if isinstance(self._source, dict):
            return {name: tuple(value.shape) for name, value in self._source.items()}
        return {name: tuple(self._source.get_slice(name).get_shape()) for name in self._source.keys()}  # noqa: SIM118

    def check(self, expected: Shapes, optional: Collection[str] = ()) -> None:
        """Names and shapes against what the model needs; `optional` names may be there or not, in any shape."""
        found = self.shapes()
        # What is missing first: of a renamed tensor it is the name to look for.
        wrong = [*sorted(expected.keys() - found.keys() - set(optional)), *sorted(found.keys() - expected.keys() - set(optional))]
        if wrong:
            what = "is missing" if wrong[0] in expected else "is not known"
            more = f" (and {len(wrong) - 1} more names differ)" if len(wrong) > 1 else ""
            raise CheckpointError("weights_mismatch", f"{self.path}: tensor {wrong[0]} {what}{more}", FOREIGN)
        for name, shape in expected.items():
            if found[name] != shape:
                raise CheckpointError("weights_mismatch", f"{self.path}: tensor {name} is {found[name]}, needs {shape}", FOREIGN)

    def values(self, names: Collection[str]) -> Iterator[tuple[str, Tensor]]:
        """One at a time, so that a caller that casts never holds two copies of a file."""
        for name in names:
            yield name, self._source[name] if isinstance(self._source, dict) else self._source.get_tensor(name)


def _open_safetensors(path: Path) -> Any:
    return safe_open(path, framework="pt", device="cpu")


def _open_pickle(path: Path) -> dict[str, Tensor]:
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError("it holds something else than named tensors")
    return content
