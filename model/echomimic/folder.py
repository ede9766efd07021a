"""A folder of published weights: where each part lies, what is missing, and loading it part by part.

Everything is looked at before anything is allocated: `check` opens each file's header and compares names and shapes. The text
encoder is 11 GB and needed once a prompt, so parts load one by one. Widths come from the base model's `config.json`; what it
does not say is as published, unless a miniature folder adds it under "livemimic" (see `Widths`).
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from model.echomimic.adapter import Adapter
from model.echomimic.clip import ClipConfig, ClipVision
from model.echomimic.config import EchoMimicConfig, Variant, WanVAEConfig
from model.echomimic.dit import EchoMimicDiT
from model.echomimic.published import Shapes, clip_shapes, dit_shapes, text_shapes, vae_shapes
from model.echomimic.speech_folder import check_speech, load_speech
from model.echomimic.tensor_file import FOREIGN, TensorFile
from model.echomimic.umt5 import TextConfig, library_name, make_text_encoder
from model.echomimic.vae import WanVAE
from model.errors import CheckpointError, ConfigError

Module = TypeVar("Module", bound=nn.Module)  # a generic method needs Python 3.12

BASE = "Wan2.1-Fun-V1.1-1.3B-InP"
DIT_FILE = "diffusion_pytorch_model.safetensors"
HUB = "https://huggingface.co"
FROM_BASE = f"{HUB}/alibaba-pai/{BASE}"
FROM_ECHOMIMIC = f"{HUB}/BadToBest/EchoMimicV3"

# Part: the places where it may lie in the folder, then where it comes from.
Places = dict[str, tuple[tuple[str, ...], str]]
COMMON: Places = {
    "config": ((f"{BASE}/config.json",), FROM_BASE),
    "vae": ((f"{BASE}/Wan2.1_VAE.pth",), FROM_BASE),
    "text": ((f"{BASE}/models_t5_umt5-xxl-enc-bf16.pth",), FROM_BASE),
    "clip": ((f"{BASE}/models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",), FROM_BASE),
    "tokenizer": ((f"{BASE}/google/umt5-xxl",), FROM_BASE),
}
OWN: dict[Variant, Places] = {
    "preview": {
        "dit": ((f"transformer/{DIT_FILE}", f"preview/transformer/{DIT_FILE}"), FROM_ECHOMIMIC),
        "audio": (("wav2vec2-base-960h", "preview/wav2vec2-base-960h"), f"{HUB}/facebook/wav2vec2-base-960h"),
    },
    "flash": {
        "dit": ((f"echomimicv3-flash-pro/{DIT_FILE}", f"flash/transformer/{DIT_FILE}", f"transformer/{DIT_FILE}"), FROM_ECHOMIMIC),
        "audio": (("chinese-wav2vec2-base", "flash/chinese-wav2vec2-base"), f"{HUB}/TencentGameMate/chinese-wav2vec2-base"),
    },
}
# Names in the base model's config.json that are ours too.
SAME_NAMES = ("dim", "ffn_dim", "num_heads", "num_layers", "freq_dim", "text_dim", "text_len", "eps")


@dataclass(frozen=True, slots=True, kw_only=True)
class Widths:
    """Configurations of all parts. A miniature's config.json has "livemimic": {"transformer": {...}, "vae": {...}, ...}."""

    dit: EchoMimicConfig
    vae: WanVAEConfig
    text: TextConfig
    clip: ClipConfig


def read_widths(path: Path, variant: Variant) -> Widths:
    try:
        content = json.loads(path.read_text())
        extra = content.get("livemimic", {})
        transformer = {name: content[name] for name in SAME_NAMES if name in content} | extra.get("transformer", {})
        return Widths(
            dit=EchoMimicConfig(variant=variant, **transformer), vae=WanVAEConfig(**extra.get("vae", {})),
            text=TextConfig(**extra.get("text", {})), clip=ClipConfig(**extra.get("clip", {})),
        )  # fmt: skip
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError("weights_mismatch", f"{path}: {error}", FOREIGN) from error


class WeightsFolder:
    """Raises CheckpointError for the parts that are missing, with their possible places and their origin."""

    def __init__(self, folder: Path, variant: Variant) -> None:
        self.variant = variant
        self.origins = {part: origin for part, (_, origin) in (COMMON | OWN[variant]).items()}
        self.paths = _find_all(folder, variant)
        self.widths = read_widths(self.paths["config"], variant)

    def check(self) -> None:
        """Names and shapes of every file. Nothing is allocated."""
        if importlib.util.find_spec("transformers") is None:
            raise ConfigError("library_missing", "transformers is not installed", "pip install 'livemimic[echomimic]' brings it.")
        for part in ("dit", "vae", "clip", "text"):
            self._checked(part)
        check_speech(self.paths["audio"], self.origins["audio"])

    def read_adapter(self, path: Path) -> Adapter:
        """A student's adapter, compared with the transformer."""
        return Adapter(path, dit_shapes(self.widths.dit))

    def load_dit(self, device: torch.device, dtype: torch.dtype, adapter: Adapter | None = None) -> EchoMimicDiT:
        """Cast once; the time embedding stays float32, in which it is computed. An adapter is merged before."""
        with torch.device("meta"):
            dit = EchoMimicDiT(self.widths.dit)
        return self._fill(
            "dit", dit, device, lambda name: torch.float32 if name.startswith("time_") else dtype,
            change=adapter.merged if adapter is not None else None,
        )  # fmt: skip

    def load_vae(self, device: torch.device, dtype: torch.dtype) -> WanVAE:
        with torch.device("meta"):
            vae = WanVAE(self.widths.vae)
        return self._fill("vae", vae, device, lambda name: dtype)

    def load_clip(self, device: torch.device, dtype: torch.dtype) -> ClipVision:
        with torch.device("meta"):
            clip = ClipVision(self.widths.clip)
        return self._fill("clip", clip, device, lambda name: dtype, prefix="visual.")

    def load_text(self, device: torch.device, dtype: torch.dtype) -> nn.Module:
        with torch.device("meta"):
            encoder = make_text_encoder(self.widths.text)
        return self._fill("text", encoder, device, lambda name: dtype, rename=library_name)

    def load_tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        path = self.paths["tokenizer"]
        try:
            return AutoTokenizer.from_pretrained(path, local_files_only=True)
        except (OSError, ValueError) as error:
            hint = f"The folder comes from {self.origins['tokenizer']}."
            raise CheckpointError("weights_unreadable", f"{path}: {error}", hint) from error

    def load_wav2vec(self) -> nn.Module:
        return load_speech(self.paths["audio"])

    def _checked(self, part: str) -> tuple[TensorFile, Shapes]:
        """The file and what is used of it."""
        file = TensorFile(self.paths[part])
        if part == "dit" and (other := _other_transformer(file.shapes().keys(), self.variant)):
            message = f"{file.path} is the transformer of {other}, not of echomimic-v3-{self.variant}"
            raise CheckpointError("weights_mismatch", message, f"The right one comes from {self.origins['dit']}.")
        shapes: dict[str, Callable[[], Shapes]] = {
            "dit": lambda: dit_shapes(self.widths.dit), "vae": lambda: vae_shapes(self.widths.vae),
            "text": lambda: text_shapes(self.widths.text), "clip": lambda: clip_shapes(self.widths.clip),
        }  # fmt: skip
        expected = shapes[part]()
        unused = {name for name in expected if part == "clip" and not _is_used(name, self.widths.clip)}
        used = {name: shape for name, shape in expected.items() if name not in unused}
        file.check(used, optional=unused)
        return file, used

    def _fill(
        self, part: str, module: Module, device: torch.device, dtype_of: Callable[[str], torch.dtype], *,
        prefix: str = "", rename: Callable[[str], str] = str, change: Callable[[str, Tensor], Tensor] | None = None,
    ) -> Module:  # fmt: skip
        file, used = self._checked(part)
        read = file.values(used)
        stored = read if change is None else ((name, change(name, value)) for name, value in read)
        values = {rename(name.removeprefix(prefix)): value.to(device, dtype_of(name)) for name, value in stored}
        module.load_state_dict(values, assign=True)
        return module.to(device).eval().requires_grad_(False)


def _find_all(folder: Path, variant: Variant) -> dict[str, Path]:
    found: dict[str, Path] = {}
    missing: list[str] = []
    origins: list[str] = []
    for part, (places, origin) in (COMMON | OWN[variant]).items():
        candidates = [root / place for place in places for root in (folder, folder / variant)]
        existing = next((path for path in candidates if path.exists()), None)
        if existing is None:
            missing.append(" or ".join(str(folder / place) for place in places) + f" is missing ({part} of echomimic-v3-{variant})")
            origins.append(origin)
        else:
            found[part] = existing
    if missing:
        where = " and ".join(dict.fromkeys(origins))
        raise CheckpointError("weights_missing", "; ".join(missing), f"What is missing comes from {where}.")
    return found


def _other_transformer(names: Collection[str], variant: Variant) -> str | None:
    """Which model's transformer these names are, if it is one and another's."""
    if "patch_embedding.weight" not in names:
        return None
    marks: dict[str, Variant] = {"audio2token.": "preview", "audio_injection.": "flash"}
    own = next((kind for mark, kind in marks.items() if any(name.startswith(mark) for name in names)), None)
    if own is None and not any("audio" in name for name in names):
        return f"the base model {BASE}, which hears nothing"
    return f"echomimic-v3-{own}" if own not in (None, variant) else None


def _is_used(name: str, config: ClipConfig) -> bool:
    if not name.startswith("visual.") or name.startswith(("visual.post_norm.", "visual.head")):
        return False
    words = name.split(".")
    return words[1] != "transformer" or int(words[2]) < config.layers_used
