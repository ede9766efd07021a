"""A portrait as two layers: the person, who moves, over a backdrop that stays.

Moved as one piece, a picture stretches like rubber where a turning head meets the wall behind it: hair tears and the wall comes along.
So the person is told from the backdrop by a matte that the network finds, and what is behind is continued from what is seen around.
The outline of a turning head is made of ever other points of it: it moves by its own way, and where it goes ahead of the person's points,
the person is continued from what is seen beside it.
Legend: B portraits, F frames (those of each portrait in a row), p planes, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Tips of hair that the matte calls backdrop would stay behind when the head moves, and smear over all that is continued from them.
_DOUBTFUL = 5  # pixels around the person
_SURE = 0.05  # of a matte at either end counts as none and all of it


class Layers(NamedTuple):
    """What the person adds to the backdrop [B or F, p, H, W], how much of each pixel is the person's [B, 1, H, W], the backdrop and the
    person without an end [B, p, H, W]. Person plus the backdrop's share is the picture, exactly, whatever the matte."""

    person: Tensor
    matte: Tensor
    backdrop: Tensor
    endless: Tensor

    @staticmethod
    def of(picture_BpHW: Tensor, matte_B1HW: Tensor, backdrop_BpHW: Tensor, endless_BpHW: Tensor) -> Layers:
        return Layers(picture_BpHW - (1.0 - matte_B1HW) * backdrop_BpHW, matte_B1HW, backdrop_BpHW, endless_BpHW)

    @staticmethod
    def cat(layers: Sequence[Layers]) -> Layers:
        return Layers(*(torch.cat(parts) for parts in zip(*layers, strict=True)))

    def shown(self, person_FpHW: Tensor, matte_F1HW: Tensor, endless_FpHW: Tensor, outlined_F1HW: Tensor) -> Tensor:
        """The person, moved with its matte and without an end, within an outline of its own, over the backdrop [F, p, H, W]."""
        frames = len(person_FpHW) // len(self.backdrop)
        shown = torch.addcmul(person_FpHW, outlined_F1HW - matte_F1HW, endless_FpHW)
        return shown.addcmul(1.0 - outlined_F1HW, self.backdrop.repeat_interleave(frames, 0))


def matte_of(logits_BHW: Tensor) -> Tensor:
    """[B, 1, H, W] in 0..1; all or nothing where it is nearly that."""
    return ((1.0 + 2.0 * _SURE) * torch.sigmoid(logits_BHW.float()) - _SURE).clamp(0.0, 1.0)[:, None]


def behind(picture_BpHW: Tensor, matte_B1HW: Tensor) -> Tensor:
    """The backdrop [B, p, H, W], continued under the person from what is seen around (pull and push, Gortler et al. 1996)."""
    side = 2 * _DOUBTFUL + 1
    seen = 1.0 - F.max_pool2d(matte_B1HW, side, stride=1, padding=_DOUBTFUL)
    return _continued(picture_BpHW, seen)


def endless(picture_BpHW: Tensor, matte_B1HW: Tensor) -> Tensor:
    """The person [B, p, H, W], continued over the backdrop from where it is all of the picture."""
    return _continued(picture_BpHW, (matte_B1HW >= 1.0 - _SURE).to(picture_BpHW.dtype))


def beyond(fields_BKchw: Tensor, matte_B1HW: Tensor) -> Tensor:
    """Fields of how a person moves, of any number of planes, continued where the matte, twice as large, says there is none: what moves
    there comes from where the person was."""
    # Fields are smooth, so at its very edge they hold half of the motion: a pixel less of the person is trusted.
    persons = 1.0 - F.max_pool2d(1.0 - F.avg_pool2d(matte_B1HW, 2), 3, stride=1, padding=1)
    return _continued(fields_BKchw.flatten(1, -3), persons).view(fields_BKchw.shape)


def _continued(planes: Tensor, weight: Tensor) -> Tensor:
    """Where the weight is less than 1, the rest comes from a picture of half the size, made in the same way."""
    if min(planes.shape[2:]) < 2:
        return planes
    total = F.avg_pool2d(weight, 2)
    coarser = F.avg_pool2d(planes * weight, 2) / total.clamp(min=1e-4)
    below = _continued(coarser, (4.0 * total).clamp(max=1.0))
    return torch.lerp(F.interpolate(below, size=planes.shape[2:], mode="bilinear", align_corners=False), planes, weight)
