"""Keeps what networks see in a portrait near what they saw in training's people.

All people in training are rendered, and photographs are further off than any of them: networks that met none close the mouth there. Where
a photograph differs more than rendered people usually do, it counts as one that differs as much as is usual.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

USUAL = 0.5  # standard deviations from the mean


class Usual(nn.Module):
    """Planes [B, c, h, w], each value within USUAL standard deviations of its mean over people; as they are before `learn`."""

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels, side, side))
        self.register_buffer("std", torch.full((channels, side, side), math.inf))

    def learn(self, people_Bchw: Tensor) -> None:
        """What training's people look like."""
        self.mean.copy_(people_Bchw.mean(dim=0))
        self.std.copy_(people_Bchw.std(dim=0))

    def forward(self, planes_Bchw: Tensor) -> Tensor:
        reach = USUAL * self.std
        return torch.minimum(torch.maximum(planes_Bchw, self.mean - reach), self.mean + reach)
