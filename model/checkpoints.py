"""The embedded preset's weights: one safetensors file with a prefix a part, and a JSON card beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from model.audio import AudioEncoder
from model.config import PRESENTER_DIT, PRESENTER_VAE
from model.dit import DiT
from model.errors import CheckpointError
from model.text import StyleEncoder
from model.vae import ReferenceVAE

PRESENTER_FILE = Path(__file__).parent / "weights" / "presenter.safetensors"


@dataclass(frozen=True, slots=True)
class PresenterParts:
    vae: ReferenceVAE
    dit: DiT
    text: StyleEncoder
    audio: AudioEncoder

    def modules(self) -> dict[str, nn.Module]:
        return {"vae": self.vae, "dit": self.dit, "text": self.text, "audio": self.audio}


def save_presenter(path: Path, parts: PresenterParts, card: dict[str, Any]) -> None:
    """Half precision where it costs nothing (networks), single where it would (latent statistics)."""
    tensors: dict[str, Tensor] = {}
    for prefix, module in parts.modules().items():
        for name, value in module.state_dict().items():
            keep = name.startswith("latent_") or not value.is_floating_point()
            tensors[f"{prefix}.{name}"] = value.contiguous() if keep else value.to(torch.float16).contiguous()
    save_file(tensors, path)
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")


def load_presenter(path: Path = PRESENTER_FILE) -> PresenterParts:
    """All parts in float32 on the CPU, in inference mode. Raises CheckpointError naming the file or the key."""
    if not path.exists():
        raise CheckpointError("weights_missing", f"{path} does not exist", "Install livemimic again, or pass --weights.")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError("weights_unreadable", f"{path}: {error}", "The file is damaged: fetch it again.") from error
    parts = PresenterParts(ReferenceVAE(PRESENTER_VAE), DiT(PRESENTER_DIT), StyleEncoder(PRESENTER_DIT.text_dim), AudioEncoder())
    expected = {f"{prefix}.{name}": v.shape for prefix, m in parts.modules().items() for name, v in m.state_dict().items()}
    for name in sorted(expected.keys() ^ tensors.keys()):
        what = "is missing" if name in expected else "is not known"
        raise CheckpointError("weights_mismatch", f"{path}: tensor {name} {what}", "Use the weights of this version.")
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            what = f"is {tuple(tensors[name].shape)}, needs {tuple(shape)}"
            raise CheckpointError("weights_mismatch", f"{path}: tensor {name} {what}", "Use the weights of this version.")
    for prefix, module in parts.modules().items():
        own = {name.removeprefix(prefix + "."): value for name, value in tensors.items() if name.startswith(prefix + ".")}
        module.load_state_dict({name: v.float() if v.dtype == torch.float16 else v for name, v in own.items()})
        module.eval().requires_grad_(False)
    return parts
