"""Rendered pictures as if photographed, for what has to find its way in photographs (`train_finders`, `train_teeth`)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def photographed(pictures: Tensor, light: Tensor, rng: np.random.Generator) -> Tensor:
    """Pictures [n, 3, H, W] in [-1, 1] in a light [n, 1, H, W] around 1, as other cameras would show them, with their noise."""

    def drawn(low: float, high: float, *shape: int) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (len(pictures), *shape))).float()

    shown = (pictures + 1.0) / 2.0 * light * drawn(0.75, 1.2, 1, 1, 1) * drawn(0.85, 1.15, 3, 1, 1) + drawn(-0.1, 0.1, 1, 1, 1)
    shown = shown.clamp(1e-3, 1.0) ** drawn(0.6, 1.7, 1, 1, 1)
    shown = torch.lerp(shown, shown.mean(dim=1, keepdim=True), drawn(-0.5, 0.8, 1, 1, 1))
    blurred = F.avg_pool2d(shown, 3, stride=1, padding=1, count_include_pad=False)
    shown = torch.lerp(shown, blurred, drawn(-0.7, 1.0, 1, 1, 1))  # below 0: sharpened
    shown = shown + torch.from_numpy(rng.normal(size=shown.shape)).float() * drawn(0.0, 0.03, 1, 1, 1)
    return shown.clamp(0, 1) * 2.0 - 1.0
