"""Where a portrait has its mouth, and what shows when lips part: the dark, and upper teeth before it.

A portrait with closed lips shows no teeth, and a network that paints them from latents paints a soft band: where each tooth ends it does
not know, and hedges. But upper teeth stay with the skull, so in the portrait's own place they never move. One set is drawn once, by the
renderer, sharp; the network only finds where in this portrait it has to be, which nose and lips tell; and the decoder, which says where
the inside of the mouth shows, uncovers it.
Legend: B portraits, H W pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from model.fields import Residual, places
from model.motion import pixel_grid

DEPTH = (-0.8, -0.9, -0.9)  # what a cover shows before any colour is added: the dark of a mouth
TEETH_FILE = Path(__file__).parent / "weights" / "teeth.png"
# Where the picture of the teeth lies in the picture of the average person, rows and columns as shares of it.
TEETH_BOX = (0.52, 0.60, 0.375, 0.625)
_AROUND = (104, 200, 64, 192)  # rows and columns around the mouth, of 256
_SIZE = 256
# Latent pixels of the lower face, from under the nose to under an open jaw: what lip-sync makes anew.
_MOUTH_CELLS = (slice(8, 13), slice(5, 11))
NUM_PLACE_TERMS = 6
_LIPS = (0.0022, 0.1473)  # where closed lips have their middle in the average person's picture: 0.3 x 0.5 of its 256 pixels off, on people
_LIPS_REACH = (24.0, 16.0)  # pixels of 256 that lips are within, open ones too
_LIPS_WAVES = (4.0, 8.0, 16.0)  # pixels of 256 a radian
NUM_LIPS_PLANES = 1 + 4 * len(_LIPS_WAVES)
_SCALE = 0.05  # of what the network says


def place_terms(grid_HW2: Tensor) -> Tensor:
    """What a place in a portrait is told as [H, W, NUM_PLACE_TERMS], from coordinates in [-1, 1], x before y."""
    x, y = grid_HW2.unbind(-1)
    return torch.stack((torch.ones_like(x), x, y, x * x, y * y, x * y), dim=-1)


def places_of_teeth(where_Bt2: Tensor, grid_HW2: Tensor) -> Tensor:
    """The places in the average person's picture [B, H, W, 2] of places in portraits, [H, W, 2] or [B, H, W, 2]; coordinates in [-1, 1]."""
    terms = place_terms(grid_HW2)
    return (terms[..., None] * where_Bt2[:, None, None]).sum(dim=-2)  # as a matrix product it would be rounded to bfloat16 in training


def places_by_lips(where_Bt2: Tensor, like_HW: Tensor) -> Tensor:
    """Where each pixel of planes [..., h, w] is, seen from the middle of the lips and in the average person's size, as waves that fade out
    around them [B, NUM_LIPS_PLANES, h, w]: teeth are found on photographs, too, on which features of lips mislead."""
    middle = where_Bt2.new_tensor(_LIPS).expand(len(where_Bt2), 2)
    at = middle
    for _ in range(3):  # Newton's steps to the place that has the lips
        x, y = at.unbind(-1)
        none, one = torch.zeros_like(x), torch.ones_like(x)
        slopes = torch.stack((torch.stack((none, one, none, 2 * x, none, y), -1), torch.stack((none, none, one, none, 2 * y, x), -1)), 1)
        turned = (slopes[..., None] * where_Bt2[:, None]).sum(dim=2)  # [B, x or y of the portrait, x or y of the average person]
        found = (place_terms(at)[..., None] * where_Bt2).sum(dim=1)
        at = at + torch.linalg.solve(turned.mT, middle - found)
    rows, columns = like_HW.shape[-2:]
    grid = pixel_grid(rows, columns, like_HW.device)
    # Straight from there on: it is known around the teeth only.
    away = ((grid - at[:, None, None])[..., None] * turned[:, None, None]).sum(dim=-2) * (_SIZE / 2)
    near = torch.exp(-(away / away.new_tensor(_LIPS_REACH)).square().sum(dim=-1, keepdim=True))
    waves = torch.cat([wave(away / length) for length in _LIPS_WAVES for wave in (torch.sin, torch.cos)], dim=-1)
    return (near * torch.cat((torch.ones_like(near), waves), dim=-1)).movedim(-1, 1)


def mouth_mask(grid: int = 16) -> Tensor:
    """1 where lip-sync makes the picture anew [grid, grid]."""
    mask = torch.zeros(grid, grid)
    mask[_MOUTH_CELLS] = 1.0
    return mask


def around_mouth(planes_HW: Tensor) -> Tensor:
    """The part of planes [..., H, W] of any size that teeth are looked for and drawn in; a view."""
    rows, columns = planes_HW.shape[-2:]
    first, last, left, right = _AROUND
    return planes_HW[..., first * rows // _SIZE : last * rows // _SIZE, left * columns // _SIZE : right * columns // _SIZE]


def grid_around_mouth(like_HW: Tensor) -> Tensor:
    """Where the pixels around the mouth are in a picture that is as large as planes [..., H, W], in grid_sample's coordinates [h, w, 2]."""
    rows, columns = like_HW.shape[-2:]
    return around_mouth(pixel_grid(rows, columns, like_HW.device).movedim(-1, 0)).movedim(0, -1)


class UpperTeeth(nn.Module):
    """A portrait [B, 3, H, W] in [-1, 1] to what its upper teeth add to the dark of its mouth [B, 3, H, W]; 0 where there are none."""

    WIDTH = 64
    drawn: Tensor
    unmoved: Tensor

    def __init__(self) -> None:
        super().__init__()
        width = self.WIDTH
        self.stem = nn.Conv2d(3 * 16 + 5, width, 3, padding=1)
        self.seen = nn.ModuleList(Residual(width) for _ in range(3))
        self.down = nn.ModuleList(nn.Conv2d(width, width, 3, stride=2, padding=1) for _ in range(2))
        first, last, left, right = _AROUND
        self.out = nn.Linear(width * (last - first) // 16 * (right - left) // 16, NUM_PLACE_TERMS * 2)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.register_buffer("drawn", _drawn(), persistent=False)
        self.register_buffer("unmoved", torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], *[[0.0, 0.0]] * 3]), persistent=False)

    def forward(self, picture_B3HW: Tensor, where_Bt2: Tensor) -> Tensor:
        """`where` they are, once it is found."""
        places_BHW2 = places_of_teeth(where_Bt2, grid_around_mouth(picture_B3HW))
        top, bottom, left, right = (2.0 * share - 1.0 for share in TEETH_BOX)
        middle = places_BHW2.new_tensor([left + right, top + bottom]) / 2.0
        reach = places_BHW2.new_tensor([right - left, bottom - top]) / 2.0
        drawn = self.drawn.expand(len(places_BHW2), -1, -1, -1)
        teeth = places_BHW2.new_zeros(picture_B3HW.shape)
        around_mouth(teeth).copy_(F.grid_sample(drawn, (places_BHW2 - middle) / reach, padding_mode="zeros", align_corners=False))
        return teeth

    def where(self, picture_B3HW: Tensor) -> Tensor:
        """Which place of the average person's picture each place of this one has, for teeth; weights of `place_terms`
        [B, NUM_PLACE_TERMS, 2], float32."""
        whole = F.interpolate(picture_B3HW.float(), size=(_SIZE, _SIZE), mode="bilinear", align_corners=False)
        return self.found(around_mouth(whole))

    def found(self, around_mouth_B3hw: Tensor) -> Tensor:
        """The same from what is looked at of a picture."""
        x = F.pixel_unshuffle(around_mouth_B3hw, 4)
        x = self.stem(torch.cat((x, places(x)), dim=1))
        for seen, down in zip(self.seen, self.down, strict=False):
            x = down(F.silu(seen(x)))
        found = self.out(F.silu(self.seen[-1](x)).flatten(1))
        return self.unmoved + _SCALE * found.unflatten(1, (NUM_PLACE_TERMS, 2)).float()


def _drawn() -> Tensor:
    """The drawn teeth's alpha times how they differ from the dark [3, h, w]."""
    pixels = torch.from_numpy(np.array(Image.open(TEETH_FILE).convert("RGBA"))).float().movedim(-1, 0) / 255.0
    return pixels[3:] * (pixels[:3] * 2.0 - 1.0 - torch.tensor(DEPTH)[:, None, None])
