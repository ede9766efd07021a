"""The portrait painted and moved: the network says what to paint on it and where it goes, and the change that makes is encoded.

Copying texture along a field is what patch transformers are bad at and what keeps hair and glasses sharp; the field itself is smooth
and learnt quickly (cf. first-order motion, arXiv 2003.00196). An opening mouth shows what the portrait does not have: it is painted
in the portrait's own coordinates, where mouths are always in about the same place, before the head moves. The network adds to
the result whatever neither explains. Legend: B batch, T latent frames, C latent channels, M motion channels, F video frames,
L layers of paint, h w latent pixels, H W pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from model.vae import PatchVAE

PIXELS_PER_UNIT = 8.0  # displacement that a network output of 1 stands for
FIELD_CELLS, PAINT_CELLS = 2, 4  # a latent pixel has this many displacements, and values of each layer, a side
# What a mouth shows, RGB in [-1, 1]: its depth, teeth, tongue. Opacities may leave 0..1, so all colours in between can be mixed.
COLOURS = ((-0.85, -0.92, -0.92), (0.75, 0.70, 0.60), (0.20, -0.45, -0.40))


def motion_channels(time_stride: int) -> int:
    """Channels of field and paint a latent frame."""
    return time_stride * (2 * FIELD_CELLS**2 + len(COLOURS) * PAINT_CELLS**2)


def clean_latent(output_BTDhw: Tensor, base_BTChw: Tensor, picture_B3HW: Tensor, vae: PatchVAE) -> Tensor:
    """The network's output, D = C + M, as a clean latent float32 [B, T, C, h, w]: base + correction + change by motion."""
    correction, field = output_BTDhw.float().split((base_BTChw.shape[2], output_BTDhw.shape[2] - base_BTChw.shape[2]), dim=2)
    moved = change_by_motion(field, picture_B3HW.float(), vae) if field.shape[2] else 0.0
    return base_BTChw.float() + correction + moved


def change_by_motion(field_BTMhw: Tensor, picture_B3HW: Tensor, vae: PatchVAE) -> Tensor:
    """How the latent of a still picture in [-1, 1] changes when it is painted and moved; [B, T, C, h, w], zero for zeros."""
    batch, frames, _, height, width = field_BTMhw.shape
    stride = vae.config.time_stride
    rows, columns = picture_B3HW.shape[2:]
    outputs = field_BTMhw.reshape(batch * frames * stride, -1, height, width)
    field, paint = outputs.split((2 * FIELD_CELLS**2, len(COLOURS) * PAINT_CELLS**2), dim=1)
    offset = _upsampled(field, FIELD_CELLS, rows, columns).movedim(1, -1)
    scale = offset.new_tensor([2.0 * PIXELS_PER_UNIT / columns, 2.0 * PIXELS_PER_UNIT / rows])
    sources = identity_grid(rows, columns, offset.device) + offset * scale
    still = picture_B3HW.repeat_interleave(frames * stride, dim=0)
    painted = _painted(still, _upsampled(paint, PAINT_CELLS, rows, columns))
    moved = F.grid_sample(painted, sources, mode="bilinear", padding_mode="border", align_corners=False)
    change = F.conv2d(moved - still, vae.analysis.weight.float(), stride=vae.config.patch)
    return vae.stack_change(change).unflatten(0, (batch, frames))


def _upsampled(values_FMhw: Tensor, cells: int, rows: int, columns: int) -> Tensor:
    """Values of `cells` x `cells` places a latent pixel, bilinear to the size of the picture [F, M / cells^2, H, W]."""
    return F.interpolate(F.pixel_shuffle(values_FMhw, cells), size=(rows, columns), mode="bilinear", align_corners=False)


def _painted(still_F3HW: Tensor, opacity_FLHW: Tensor) -> Tensor:
    colours = opacity_FLHW.new_tensor(COLOURS)
    paint = F.conv2d(opacity_FLHW, colours.T[:, :, None, None])
    return still_F3HW * (1.0 - opacity_FLHW.sum(dim=1, keepdim=True)) + paint


def identity_grid(rows: int, columns: int, device: torch.device) -> Tensor:
    """Where each pixel is, in grid_sample's coordinates [H, W, 2], x before y."""
    y = (torch.arange(rows, device=device) + 0.5) * 2.0 / rows - 1.0
    x = (torch.arange(columns, device=device) + 0.5) * 2.0 / columns - 1.0
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
