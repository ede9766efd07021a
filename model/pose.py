"""The pose in which a picture shows a portrait's person, read from how pixels moved."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from model.controls import NUM_CONTROLS
from model.layers import matte_of
from model.motion import NUM_HEAD_CONTROLS, portrait_motion
from model.mouth import mouth_mask
from model.vae import Reference, ReferenceVAE

MAX_MOVE = 2.5  # about the widest motion training showed
_ROUNDS, _RIDGE = 4, 0.01
_COUNTED_SIDE = 32


class PoseReader:
    """The pose in which pictures show a portrait's person."""

    def __init__(self, vae: ReferenceVAE, reference: Reference) -> None:
        self._vae, self._reference, self._canvas = vae, reference, vae.decoder.canvas(reference)
        self._fit = PoseFit(reference.fields, matte_of(reference.person))

    def __call__(self, pictures_F3HW: Tensor) -> Tensor:
        """Moves [F, NUM_CONTROLS] that take the portrait's head there."""
        return self.pose(self.motion(pictures_F3HW))

    def motion(self, pictures_F3HW: Tensor) -> Tensor:
        """Where pixels came from, as latents that no moves are told with say it [F, 2, h, w]."""
        still = pictures_F3HW.new_zeros(len(pictures_F3HW), NUM_CONTROLS)
        untold = self._vae.encoder(pictures_F3HW, self._reference, self._reference.moved(still))
        return self._vae.decoder(untold, self._canvas, still).motion

    def pose(self, motion_F2hw: Tensor) -> Tensor:
        return self._fit(motion_F2hw)


class PoseFit:
    """The pose under which a portrait's pixels move as they are seen to: least squares, linear around the portrait's own, repeated."""

    def __init__(self, fields_1Kchw: Tensor, matte_11HW: Tensor) -> None:
        """Where the matte is 0 nothing tells how a person moves."""
        self._fields = fields_1Kchw
        cells = mouth_mask().repeat_interleave(_COUNTED_SIDE // 16, 0).repeat_interleave(_COUNTED_SIDE // 16, 1)
        self._counted = (1.0 - cells).to(fields_1Kchw) * F.adaptive_avg_pool2d(matte_11HW, _COUNTED_SIDE)[0, 0]
        aside = torch.zeros(NUM_HEAD_CONTROLS, NUM_CONTROLS).to(fields_1Kchw)
        aside[:, :NUM_HEAD_CONTROLS].fill_diagonal_(1.0)
        slopes = (self._told(aside) - self._told(-aside)) / 2.0
        normal = slopes @ slopes.T
        normal += _RIDGE * normal.diagonal().mean() * torch.eye(NUM_HEAD_CONTROLS).to(normal)
        self._solution = torch.linalg.solve(normal, slopes)

    def __call__(self, motion_F2hw: Tensor) -> Tensor:
        """Moves [F, NUM_CONTROLS], of which only the head's are not zero."""
        seen = self._cells(motion_F2hw)
        moves = torch.zeros(len(seen), NUM_CONTROLS).to(seen)
        for _ in range(_ROUNDS):
            further = (seen - self._told(moves)) @ self._solution.T
            moves[:, :NUM_HEAD_CONTROLS] = (moves[:, :NUM_HEAD_CONTROLS] + further).clamp(-MAX_MOVE, MAX_MOVE)
        return moves

    def _told(self, moves_FM: Tensor) -> Tensor:
        return self._cells(portrait_motion(self._fields, moves_FM).total().person)

    def _cells(self, motion_F2hw: Tensor) -> Tensor:
        """Means over cells, the mouth's left out [F, n]."""
        return (F.adaptive_avg_pool2d(motion_F2hw, _COUNTED_SIDE) * self._counted).flatten(1)
