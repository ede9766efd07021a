"""Golden cases at the published widths. Parameters and inputs are not stored but drawn from a recipe by name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model.echomimic.clip import ClipConfig, ClipVision
from model.echomimic.dit import EchoMimicDiT
from model.echomimic.published import text_shapes
from model.echomimic.umt5 import encode_text, library_names, make_text_encoder
from model.echomimic.vae import WanVAE
from model.golden.case import STATISTICS, Result, compare, read_json, read_tensors
from model.golden.encoders import text_config
from model.golden.transformer import dit_config
from model.golden.vae import vae_config

FILE = "fullwidth"
RECIPE = 1e-7  # tolerance of the drawn values themselves
Part = dict[str, Any]


def drawn(tag: str, name: str, shape: list[int]) -> Tensor:
    """Uniform in [-1, 1), float32, seeded by the tag and the name."""
    seed = int.from_bytes(hashlib.sha256(f"{tag}|{name}".encode()).digest()[:8], "little")
    values = np.random.Generator(np.random.PCG64(seed)).random(int(np.prod(shape)), dtype=np.float32)
    return torch.from_numpy(values * np.float32(2) - np.float32(1)).reshape(shape)


def parameter(tag: str, name: str, shape: list[int]) -> Tensor:
    u = drawn(tag, name, shape)
    if name.endswith("modulation"):
        return 0.5 * u
    if name.endswith("bias"):
        return 0.1 * u
    if name.endswith("gamma") or len(shape) == 1:
        return 1 + 0.1 * u
    return u * float(np.float32(np.sqrt(3 / np.prod(shape[1:]))))


def inputs(part: Part) -> dict[str, Tensor]:
    """By the name's last word before any remark: `input.x` is `x`."""
    names = {name.split()[0]: shape for name, shape in part["inputs"].items()}
    return {name.removeprefix("input."): drawn(part["tag"], name, shape) * float(np.float32(np.sqrt(3))) for name, shape in names.items()}


def build(part: Part, make: Callable[[], nn.Module]) -> Any:
    with torch.device("meta"):
        module = make()
    weights = {name: parameter(part["tag"], name, list(value.shape)) for name, value in module.state_dict().items()}
    module.load_state_dict(weights, assign=True)
    return module.eval().requires_grad_(False)


def run_transformer(part: Part, variant: Any) -> Iterator[tuple[str, Tensor]]:
    dit = build(part, lambda: EchoMimicDiT(dit_config(variant, part["config"], {})))
    given = inputs(part)
    rows, columns = (side // 2 for side in part["latent"][-2:])
    mask = None
    if variant == "preview":
        top, bottom, left, right = (int(number) for number in re.findall(r"\d+", part["face_mask"])[:4])
        mask = torch.zeros(1, rows, columns)
        mask[:, top : bottom + 1, left : right + 1] = 1
        mask = mask.flatten(1)
    out = dit(
        given["x"], given["y"], torch.tensor([part["t"]]), text=[given["text"]], image_BLC=given["clip"],
        audio=given["audio"], face_mask_BN=mask,
    )  # fmt: skip
    yield f"{variant}.out", out


def run_vae(part: Part) -> Iterator[tuple[str, Tensor]]:
    vae, given = build(part, lambda: WanVAE(vae_config(part["config"]))), inputs(part)
    yield "vae.decode_raw", vae.decode(given["z"])
    yield "vae.encode_moments", vae.encode_moments(given["video"].clamp(-1, 1), {})


def run_clip(part: Part) -> Iterator[tuple[str, Tensor]]:
    config = part["config"]
    own = ClipConfig(
        image_size=config["image_size"], patch=config["patch_size"], dim=config["dim"], num_heads=config["heads"],
        num_layers=config["layers_built"], layers_used=config["layers_used"],
    )  # fmt: skip
    yield "clip.tokens_subset", build(part, lambda: ClipVision(own))(inputs(part)["pixel"])[:, ::16]


def run_t5(part: Part) -> Iterator[tuple[str, Tensor]]:
    with torch.device("meta"):
        encoder = make_text_encoder(text_config(part["config"]))
    shapes = text_shapes(text_config(part["config"]))
    weights = {name: parameter(part["tag"], name, list(shape)) for name, shape in shapes.items()}
    encoder.load_state_dict(library_names(weights), assign=True)
    encoder.requires_grad_(False)
    yield "t5.out", torch.stack(encode_text(encoder, torch.tensor(part["ids"]), torch.tensor(part["mask"])))


RUNS: dict[str, Callable[[Part], Iterator[tuple[str, Tensor]]]] = {
    "preview": lambda part: run_transformer(part, "preview"),
    "flash": lambda part: run_transformer(part, "flash"),
    "vae": run_vae,
    "clip": run_clip,
    "t5": run_t5,
}


def check_fullwidth(folder: Path) -> Iterator[Result]:
    settings, expected = read_json(folder, FILE), read_tensors(folder, FILE)
    for name, part in settings.items():
        for probed, probe in (part.get("probe") or {}).items():
            first = parameter(part["tag"], probed, probe["shape"]).flatten()[:8]
            yield compare(FILE, f"{name} recipe {probed}", first, torch.tensor(probe["first8"]), RECIPE)
        for probed, values in (part.get("input_probe") or {}).items():
            first = inputs(part)[probed.removeprefix("input.")].flatten()[:8]
            yield compare(FILE, f"{name} recipe {probed}", first, torch.tensor(values), RECIPE)
        for case, out in RUNS[name](part):
            yield compare(FILE, case, out, expected[case], STATISTICS)
