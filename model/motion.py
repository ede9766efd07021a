"""How a portrait moves with head, lids, eyes, brows and smile: fields made once a session, mixed by every video frame's moves.

Moves are told for every video frame, the transformer answers once in four. What follows from moves alone is therefore not left to
it: a head turns along its own smooth curve and a lid closes in the very frame in which it should, whatever is being said.
Latents only say what is different from the portrait so moved.

Head motion is a displacement of the portrait's points, second order in the moves: a turning head is a rotation, of depths that the network
reads from the picture. Expressions are fetched by the moved portrait from itself. Displacements are in pixels of the picture.
A closed lid is nowhere in a portrait with open eyes, so it is drawn onto it: at every pixel around the eyes a colour, and how far the
lids have to close to reach it.
Legend: B portraits, F video frames (those of each portrait in a row), H W pixels of the picture, h w half of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import VAEConfig
from model.controls import CONTROL_NAMES

BLINK = CONTROL_NAMES.index("blink")
NUM_HEAD_CONTROLS = BLINK  # yaw, pitch, roll, x, y come first

PIXELS_PER_UNIT = 8.0  # displacement that a network's output of 1 stands for
NUM_HEAD_TERMS = 11
NUM_TERMS = NUM_HEAD_TERMS + 9
# Where the framing puts eyes, with room for those of others: rows and columns as shares of the picture.
_AROUND_EYES = (0.27, 0.53, 0.25, 0.75)
_LID_EDGE = 14.0  # how much sharper than a closure from 0 to 1 the edge of a lid is
_SETTLE = 3  # rounds after which the place that a pixel was fetched from is settled to a tenth of a pixel


def terms(moves_FM: Tensor) -> Tensor:
    """What fields are mixed by [F, NUM_TERMS], from moves [F, NUM_CONTROLS] (controls less the portrait's own); nothing of none."""
    yaw, pitch, roll, x, y, blink, gaze_x, gaze_y, brow, smile = moves_FM.unbind(1)
    head = (yaw, pitch, roll, x, y, yaw * yaw, pitch * pitch, roll * roll, yaw * pitch, yaw * roll, pitch * roll)
    # Lids pass over the eye: where they are is no straight line in how far they are closed. Brows lift and frown differently.
    face = (blink, blink**2, blink**3, gaze_x, gaze_y, brow.clamp(min=0), brow.clamp(max=0), smile, smile * smile.abs())
    return torch.stack((*head, *face), dim=1)


class Moved(NamedTuple):
    """The portraits with their lids drawn [F, 3, H, W], and where each pixel of it is fetched from, as a displacement [F, 2, h, w]."""

    picture: Tensor
    motion: Tensor

    def shown(self) -> Tensor:
        return fetch(self.picture, self.motion)


class Lids(NamedTuple):
    """Colours of closed lids [B, 3, H, W] and at what closure they reach a pixel [B, 1, H, W]."""

    colour: Tensor
    reach: Tensor

    @staticmethod
    def cat(lids: Sequence[Lids]) -> Lids:
        return Lids(torch.cat([each.colour for each in lids]), torch.cat([each.reach for each in lids]))


class MotionFields(nn.Module):
    """A portrait and its features to its fields [B, NUM_TERMS, 2, h, w], zero when untrained, and its lids."""

    WIDTH = 32

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        fine, middle, coarse = config.widths
        width = self.WIDTH
        self.coarse = nn.Conv2d(coarse, width, 3, padding=1)
        self.middle = nn.Conv2d(middle + width, width, 3, padding=1)
        self.fine = nn.Conv2d(fine + width + 5, width, 3, padding=1)
        self.join = nn.Conv2d(width, width, 3, padding=1)
        # Where a point is says most of how it turns: a roll is the place itself, turned by ninety degrees.
        self.out = nn.Conv2d(width + 5, 4 * 2 * NUM_TERMS, 1)
        self.near_lids = nn.Conv2d(width, width, 3, padding=1)
        self.lids = nn.Conv2d(width, 16 * 4, 1)
        for layer in (self.out, self.lids):
            nn.init.zeros_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, picture_B3HW: Tensor, fine_Bchw: Tensor, middle_Bchw: Tensor, coarse_Bchw: Tensor) -> tuple[Tensor, Lids]:
        x = F.silu(self.coarse(F.silu(coarse_Bchw)))
        x = F.silu(self.middle(torch.cat((F.silu(middle_Bchw), F.interpolate(x, scale_factor=2.0)), dim=1)))
        where = _places(fine_Bchw)
        x = F.silu(self.fine(torch.cat((F.silu(fine_Bchw), F.interpolate(x, scale_factor=2.0), where), dim=1)))
        x = F.silu(self.join(x))
        fields = F.pixel_shuffle(self.out(torch.cat((x, where), dim=1)), 2)
        return fields.unflatten(1, (NUM_TERMS, 2)).float() * PIXELS_PER_UNIT, self._lids(picture_B3HW, x)

    def _lids(self, picture: Tensor, x: Tensor) -> Lids:
        colour, later = F.pixel_shuffle(self.lids(F.silu(self.near_lids(x))), 4).float().split((3, 1), dim=1)
        skin = F.interpolate(_skin(F.avg_pool2d(picture, 4)), scale_factor=4.0, mode="bilinear", align_corners=False)
        height, width = picture.shape[2:]
        top, bottom, left, right = (round(share * side) for share, side in zip(_AROUND_EYES, (height, height, width, width), strict=True))
        far = torch.ones_like(later)
        far[..., top:bottom, left:right] = 0.0
        # Untrained, a lid is half there when it should be closed: from nothing, nothing is learnt. Smoothed: skin has no edges there.
        smoothed = F.avg_pool2d(torch.cat((colour, later), dim=1), 5, stride=1, padding=2, count_include_pad=False)
        return Lids(skin + smoothed[:, :3], 1.0 + smoothed[:, 3:] + 4.0 * far)


def with_lids(planes_BpHW: Tensor, lids: Lids, blink_F: Tensor) -> Tensor:
    """The portraits' planes with lids closed by `blink`, frames of each portrait in a row [F, p, H, W]; `lids` in the same planes."""
    closure = blink_F.unflatten(0, (len(planes_BpHW), -1))[..., None, None, None]
    cover = torch.sigmoid(_LID_EDGE * (closure - lids.reach[:, None])) * (closure > 0)
    return torch.lerp(planes_BpHW[:, None], lids.colour[:, None], cover).flatten(0, 1)


def portrait_motion(fields_BKchw: Tensor, moves_FM: Tensor) -> Tensor:
    """Where each pixel of the moved portraits is fetched from, as a displacement [F, 2, h, w]."""
    mixed_by = terms(moves_FM.float()).unflatten(0, (len(fields_BKchw), -1))
    head, face = (slice(NUM_HEAD_TERMS), slice(NUM_HEAD_TERMS, None))
    # A point goes to q + d(q); the one seen at p is the q with q = p - d(q).
    displacement = torch.einsum("bfk,bkchw->bfchw", mixed_by[:, :, head], fields_BKchw[:, head]).flatten(0, 1)
    motion = -displacement
    for _ in range(_SETTLE - 1):
        motion = -fetch(displacement, motion)
    expression = torch.einsum("bfk,bkchw->bfchw", mixed_by[:, :, face], fields_BKchw[:, face]).flatten(0, 1)
    return motion + fetch(expression, motion)


def fetch(planes_BpHW: Tensor, motion_F2hw: Tensor) -> Tensor:
    """Planes of a picture, each pixel fetched from where the motion says [F, p, H, W], frames of each picture in a row.

    Motion counts in pixels of a picture twice its own size, whatever size the planes have.
    """
    height, width = motion_F2hw.shape[2:]
    motion = motion_F2hw * motion_F2hw.new_tensor([1.0 / width, 1.0 / height])[:, None, None]
    rows, columns = planes_BpHW.shape[2:]
    if (height, width) != (rows, columns):
        motion = F.interpolate(motion, size=(rows, columns), mode="bilinear", align_corners=False)
    sources = motion + pixel_grid(rows, columns, motion.device).movedim(-1, 0)
    repeated = planes_BpHW[:, None].expand(-1, len(sources) // len(planes_BpHW), -1, -1, -1).flatten(0, 1)
    return F.grid_sample(repeated.float(), sources.movedim(1, -1), padding_mode="border", align_corners=False).to(planes_BpHW.dtype)


def pixel_grid(rows: int, columns: int, device: torch.device) -> Tensor:
    """Where each pixel is, in grid_sample's coordinates [H, W, 2], x before y."""
    y = (torch.arange(rows, device=device) + 0.5) * 2.0 / rows - 1.0
    x = (torch.arange(columns, device=device) + 0.5) * 2.0 / columns - 1.0
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def _skin(picture_B3hw: Tensor) -> Tensor:
    """What is usual around each pixel: the median over 7x7, which an eye, smaller than half of that, has no part in."""
    around = F.unfold(F.pad(picture_B3hw, (3, 3, 3, 3), mode="replicate"), 7).unflatten(1, (3, 49))
    return around.median(dim=2).values.view(picture_B3hw.shape)


def _places(like_Bchw: Tensor) -> Tensor:
    """x, y and their products at every pixel [B, 5, h, w]."""
    x, y = pixel_grid(like_Bchw.shape[2], like_Bchw.shape[3], like_Bchw.device).unbind(-1)
    return torch.stack((x, y, x * x, y * y, x * y)).to(like_Bchw.dtype).expand(len(like_Bchw), -1, -1, -1)
