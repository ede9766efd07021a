"""RGB to I420, the layout every video encoder takes: BT.601, limited range, chroma averaged over 2x2 pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Rows Y, U, V for RGB in [-1, 1]: studio swing, 219 steps of luma, 224 of chroma (ITU-R BT.601).
_MATRIX = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
_SWING = torch.tensor([[219.0 / 2], [224.0 / 2], [224.0 / 2]])
_OFFSET = torch.tensor([[16.0 + 219.0 / 2], [128.0], [128.0]])


def rgb_to_i420(frames_FCHW: Tensor) -> Tensor:
    """RGB float [F, 3, H, W] in [-1, 1], H and W even, to uint8 [F, H*3//2, W]."""
    frames, _, height, width = frames_FCHW.shape
    if height % 2 or width % 2:
        raise ValueError(f"I420 needs even sizes, got {width}x{height}")
    rgb = frames_FCHW.float().clamp(-1, 1).flatten(2)
    planes = ((_MATRIX * _SWING).to(rgb) @ rgb + _OFFSET.to(rgb)).view(frames, 3, height, width)
    chroma = F.avg_pool2d(planes[:, 1:], 2).reshape(frames, height // 2, width)
    return torch.cat((planes[:, 0], chroma), dim=1).round_().to(torch.uint8)
