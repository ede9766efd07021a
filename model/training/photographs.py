"""Rendered people as if photographed: faces of other proportions, held aslant, in other light, by other cameras.

What only saw renders closes its mouth on photographs: with the same voice, lips opened by 0.01 to 0.03 of a face's height on three of five
pictures, where presenters' open by 0.08.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.controls import CONTROL_NAMES
from model.motion import pixel_grid

MIRRORED = torch.tensor([-1.0 if name in ("yaw", "roll", "x", "gaze_x") else 1.0 for name in CONTROL_NAMES])
_EYES = (102.0, 14.0)  # the row around which the framing has eyes, of 256, and how far the shadow of a brow reaches
# Faces vary: by so many pixels of 256, at so many places along a side.
_BENDS = ((4, 5.0), (9, 2.0))


class Look(NamedTuple):
    """How each of n people is seen: where each pixel is taken from [n, H, W, 2], in grid_sample's coordinates; the light [n, 1, H, W] and
    what the camera makes of it; and how much of all that [n, 1, 1, 1]. Applies to whatever is of those people, in a row."""

    grid: Tensor
    light: Tensor
    tint: Tensor
    lift: Tensor
    gamma: Tensor
    grey: Tensor
    sharp: Tensor
    amount: Tensor

    @staticmethod
    def drawn(count: int, size: int, rng: np.random.Generator, mirror: float = 0.5) -> Look:
        """From hardly to very different; mirrored with that chance."""

        def even(low: float, high: float, *shape: int) -> Tensor:
            return torch.from_numpy(rng.uniform(low, high, (count, *shape))).float()

        def waves(side: int, channels: int) -> Tensor:
            coarse = even(-1.0, 1.0, channels, side, side)
            return F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True)

        amount = even(0.0, 1.0, 1, 1, 1)
        plain = pixel_grid(size, size, torch.device("cpu")).expand(count, -1, -1, -1)
        turn = even(-0.12, 0.12, 1, 1) * amount[..., 0]
        scale = torch.exp(even(-0.1, 0.1, 1, 1, 1) + even(-0.07, 0.07, 1, 1, 2) * amount)
        x, y = (plain * scale).unbind(-1)
        grid = torch.stack((x * turn.cos() - y * turn.sin(), x * turn.sin() + y * turn.cos()), dim=-1) + even(-0.06, 0.06, 1, 1, 2)
        for side, reach in _BENDS:
            grid = grid + amount * waves(side, 2).movedim(1, -1) * (reach * 2.0 / 256)
        grid = grid * torch.where(even(0.0, 1.0, 1, 1, 1) < mirror, plain.new_tensor([-1.0, 1.0]), plain.new_tensor([1.0, 1.0]))
        row, reach = _EYES
        shaded = even(-0.1, 0.45, 1, 1, 1) * torch.exp(-((((plain[..., 1] + 1.0) * 128.0 - row) / reach) ** 2))[:, None]
        light = (1.0 + (plain * even(-0.5, 0.5, 1, 1, 2)).sum(dim=-1)[:, None] + 0.4 * waves(4, 1)).clamp(0.3, 1.7) * (1.0 - shaded)
        tint = even(0.75, 1.2, 1, 1, 1) * even(0.9, 1.1, 3, 1, 1)
        camera = (even(-0.08, 0.08, 1, 1, 1), even(0.6, 1.7, 1, 1, 1), even(-0.5, 0.8, 1, 1, 1), even(-0.7, 0.7, 1, 1, 1))
        return Look(grid, light, tint, *camera, amount)

    def other(self, rng: np.random.Generator) -> Look:
        """Another look of each, mirrored where this one is."""
        count, size = self.grid.shape[:2]
        fresh = Look.drawn(count, size, rng, mirror=0.0)
        sign = torch.where(self._mirrored(), -1.0, 1.0)[:, None, None]
        return fresh._replace(grid=torch.stack((fresh.grid[..., 0] * sign, fresh.grid[..., 1]), dim=-1))

    def _mirrored(self) -> Tensor:
        return self.grid[:, 0, 0, 0] > self.grid[:, 0, -1, 0]

    def planes(self, planes_FpHW: Tensor) -> Tensor:
        """Masks and the like where they then are, of any size."""
        return F.grid_sample(planes_FpHW, self._grid(planes_FpHW), padding_mode="border", align_corners=False)

    def pictures(self, pictures_F3HW: Tensor) -> Tensor:
        """In [-1, 1]."""
        there, times = self.planes(pictures_F3HW), len(pictures_F3HW) // len(self.grid)
        light, tint, lift, gamma, grey, sharp, amount = (part.repeat_interleave(times, 0).to(there) for part in self[1:])
        shown = developed((there + 1.0) / 2.0 * light * tint + lift, gamma, grey, sharp)
        return torch.lerp(there, shown * 2.0 - 1.0, amount)

    def motion(self, motion_F2hw: Tensor) -> Tensor:
        """Displacements where they then are, and as they are then: seen through the inverse of how places are bent around them."""
        grid = self._grid(motion_F2hw)
        height, width = motion_F2hw.shape[2:]
        # How places change along a row and along a column [F, h, w, 2], per pixel of both: 1 for a step of one.
        along_x, along_y = (torch.gradient(grid, dim=dim)[0] * side / 2.0 for dim, side in ((2, width), (1, height)))
        x, y = F.grid_sample(motion_F2hw, grid, padding_mode="border", align_corners=False).unbind(1)
        (xx, yx), (xy, yy) = along_x.unbind(-1), along_y.unbind(-1)
        determinant = xx * yy - xy * yx
        return torch.stack((yy * x - xy * y, xx * y - yx * x), dim=1) / determinant[:, None]

    def moves(self, moves_FM: Tensor) -> Tensor:
        """Of who is mirrored those to the side, the other way."""
        mirrored = self._mirrored().repeat_interleave(len(moves_FM) // len(self.grid))
        return torch.where(mirrored[:, None].to(moves_FM.device), moves_FM * MIRRORED.to(moves_FM), moves_FM)

    def _grid(self, planes_FpHW: Tensor) -> Tensor:
        times, size = len(planes_FpHW) // len(self.grid), planes_FpHW.shape[2:]
        grid = self.grid.movedim(-1, 1)
        if grid.shape[2:] != size:
            grid = F.interpolate(grid, size=size, mode="bilinear", align_corners=False)
        return grid.movedim(1, -1).repeat_interleave(times, 0).to(planes_FpHW)


def developed(shown: Tensor, gamma: Tensor, grey: Tensor, sharp: Tensor) -> Tensor:
    """Pictures [n, 3, H, W] in 0..1 brighter or darker in the middle tones, greyer or more colourful, sharpened or, below 0, blurred."""
    shown = shown.clamp(1e-3, 1.0) ** gamma
    shown = torch.lerp(shown, shown.mean(dim=1, keepdim=True), grey)
    blurred = F.avg_pool2d(shown, 3, stride=1, padding=1, count_include_pad=False)
    return torch.lerp(shown, blurred, -sharp).clamp(0.0, 1.0)


def photographed(pictures: Tensor, light: Tensor, rng: np.random.Generator) -> Tensor:
    """Pictures [n, 3, H, W] in [-1, 1] in a light [n, 1, H, W] around 1, as other cameras would show them, with their noise."""

    def drawn(low: float, high: float, *shape: int) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (len(pictures), *shape))).float()

    shown = (pictures + 1.0) / 2.0 * light * drawn(0.75, 1.2, 1, 1, 1) * drawn(0.85, 1.15, 3, 1, 1) + drawn(-0.1, 0.1, 1, 1, 1)
    shown = developed(shown, drawn(0.6, 1.7, 1, 1, 1), drawn(-0.5, 0.8, 1, 1, 1), drawn(-1.0, 0.7, 1, 1, 1))
    shown = shown + torch.from_numpy(rng.normal(size=shown.shape)).float() * drawn(0.0, 0.03, 1, 1, 1)
    return shown.clamp(0, 1) * 2.0 - 1.0
