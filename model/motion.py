"""Motion of the portrait: the network says where every place of a frame comes from, and the change that makes is encoded.

Copying texture along a field is what patch transformers are bad at and what keeps hair and glasses sharp; the field itself is smooth
and learnt quickly (cf. first-order motion, arXiv 2003.00196). The network adds to the result whatever no motion explains: the inside
of the mouth, closing lids, what was hidden before. Legend: B batch, T latent frames, C latent channels, M motion channels,
h w latent pixels, H W pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from model.vae import PatchVAE

PIXELS_PER_UNIT = 8.0  # displacement that a network output of 1 stands for


def motion_channels(time_stride: int, cells: int) -> int:
    """Channels of a field of `cells` x `cells` displacements a latent pixel and video frame."""
    return time_stride * 2 * cells * cells


def clean_latent(output_BTDhw: Tensor, base_BTChw: Tensor, picture_B3HW: Tensor, vae: PatchVAE) -> Tensor:
    """The network's output, D = C + M, as a clean latent float32 [B, T, C, h, w]: base + correction + change by motion."""
    correction, field = output_BTDhw.float().split((base_BTChw.shape[2], output_BTDhw.shape[2] - base_BTChw.shape[2]), dim=2)
    moved = change_by_motion(field, picture_B3HW.float(), vae) if field.shape[2] else 0.0
    return base_BTChw.float() + correction + moved


def change_by_motion(field_BTMhw: Tensor, picture_B3HW: Tensor, vae: PatchVAE) -> Tensor:
    """How the latent of a still picture in [-1, 1] changes when it moves along the field; [B, T, C, h, w], zero for a zero field."""
    batch, frames, channels, height, width = field_BTMhw.shape
    stride = vae.config.time_stride
    cells = round((channels / (2 * stride)) ** 0.5)
    rows, columns = picture_B3HW.shape[2:]
    coarse = F.pixel_shuffle(field_BTMhw.reshape(-1, 2 * cells * cells, height, width), cells)
    offset = F.interpolate(coarse, size=(rows, columns), mode="bilinear", align_corners=False).movedim(1, -1)
    scale = offset.new_tensor([2.0 * PIXELS_PER_UNIT / columns, 2.0 * PIXELS_PER_UNIT / rows])
    sources = identity_grid(rows, columns, offset.device) + offset * scale
    still = picture_B3HW.repeat_interleave(frames * stride, dim=0)
    moved = F.grid_sample(still, sources, mode="bilinear", padding_mode="border", align_corners=False)
    change = F.conv2d(moved - still, vae.analysis.weight.float(), stride=vae.config.patch)
    return vae.stack_change(change).unflatten(0, (batch, frames))


def identity_grid(rows: int, columns: int, device: torch.device) -> Tensor:
    """Where each pixel is, in grid_sample's coordinates [H, W, 2], x before y."""
    y = (torch.arange(rows, device=device) + 0.5) * 2.0 / rows - 1.0
    x = (torch.arange(columns, device=device) + 0.5) * 2.0 / columns - 1.0
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
