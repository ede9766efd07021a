"""Golden cases of the causal video autoencoder; each is also streamed in two parts, which must give the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from model.echomimic.config import WanVAEConfig
from model.echomimic.vae import WanVAE
from model.echomimic.vae_layers import History
from model.golden.case import STATISTICS, Result, compare, loaded, read_json, read_tensors


def vae_config(config: dict[str, Any]) -> WanVAEConfig:
    """From the golden files' words for it; what they leave out is as published."""
    optional = {}
    if "num_res_blocks" in config:
        optional = {
            "multipliers": tuple(config["dim_mult"]), "num_residuals": config["num_res_blocks"],
            "temporal_down": tuple(config["temporal_downsample"]),
        }  # fmt: skip
    return WanVAEConfig(width=config["dim"], latent_channels=config["z_dim"], **optional)


def check_vae(folder: Path) -> Iterator[Result]:
    settings, cases = read_json(folder, "vae"), read_tensors(folder, "vae.cases")
    vae = WanVAE(vae_config(settings["config"]))
    loaded(vae, read_tensors(folder, "vae.weights"))
    for i in range(len(settings["encode"])):
        video = cases[f"enc{i}.x"]
        moments = vae.encode_moments(video, {})
        yield compare("vae", f"encode {i} moments", moments, cases[f"enc{i}.moments"], STATISTICS)
        yield compare("vae", f"encode {i} mode", vae.encode(video), cases[f"enc{i}.mode"], STATISTICS)
        if moments.shape[2] > 1:
            history: History = {}
            parts = [vae.encode_moments(part, history) for part in (video[:, :, :1], video[:, :, 1:])]
            yield compare("vae", f"encode {i} streamed", torch.cat(parts, dim=2), moments, 0.0)
    for i in range(len(settings["decode"])):
        z = cases[f"dec{i}.z"]
        raw = vae.decode(z)
        yield compare("vae", f"decode {i}", raw, cases[f"dec{i}.raw"], STATISTICS)
        if f"dec{i}.out" in cases:
            yield compare("vae", f"decode {i} clamped", raw.clamp(-1, 1), cases[f"dec{i}.out"], STATISTICS)
        if z.shape[2] > 1:
            history = {}
            parts = [vae.decode(part, history) for part in z.split(1, dim=2)]
            yield compare("vae", f"decode {i} streamed", torch.cat(parts, dim=2), raw, 0.0)
