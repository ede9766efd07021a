"""The speech encoder's folder as it is published: looked at by names and shapes, then loaded by transformers.

transformers alone would fill what a file lacks with random numbers and go on.
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from model.echomimic.published import Shapes, module_shapes
from model.echomimic.tensor_file import DAMAGED, TensorFile
from model.errors import CheckpointError

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
# Files written before torch 2.1 have other names for a weight and its norm in the positional convolution.
OLD_NAMES = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
TRAINING_ONLY = frozenset({"masked_spec_embed"})


def check_speech(folder: Path, origin: str) -> None:
    """Raises CheckpointError; nothing is allocated."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    path = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    for wanted in ("config.json", *WEIGHT_FILES[: path is None]):
        if not (folder / wanted).is_file():
            raise CheckpointError("weights_missing", f"{folder / wanted} is missing", f"It comes from {origin}.")
    assert path is not None
    try:
        config = Wav2Vec2Config.from_pretrained(folder, local_files_only=True)
        expected = module_shapes(lambda: Wav2Vec2Model(config))
    except (OSError, ValueError) as error:
        raise CheckpointError("weights_unreadable", f"{folder / 'config.json'}: {error}", DAMAGED) from error
    file = TensorFile(path)
    found = {_library_name(name): shape for name, shape in file.shapes().items()}
    _compare(path, {name: shape for name, shape in expected.items() if name not in TRAINING_ONLY}, found, origin)


def load_speech(folder: Path) -> nn.Module:
    """In float32 on the CPU: a second of speech is a hundredth of a frame's work."""
    from transformers import Wav2Vec2Model

    return Wav2Vec2Model.from_pretrained(folder, local_files_only=True).float().eval().requires_grad_(False)


def _library_name(name: str) -> str:
    """Files of a model with a head on top have a prefix, and the head's own tensors, which are not used."""
    name = name.removeprefix("wav2vec2.")
    stem, _, last = name.rpartition(".")
    return f"{stem}.{OLD_NAMES[last]}" if last in OLD_NAMES else name


def _compare(path: Path, expected: Shapes, found: Shapes, origin: str) -> None:
    for name, shape in expected.items():
        if found.get(name) != shape:
            what = "is missing" if name not in found else f"is {found[name]}, needs {shape}"
            raise CheckpointError("weights_mismatch", f"{path}: tensor {name} {what}", f"The right one comes from {origin}.")
