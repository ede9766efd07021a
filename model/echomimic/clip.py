"""The image tower of CLIP ViT-H/14 as image-to-video uses it: all tokens of the last block but one, no final norm, no head.

Written out instead of transformers' module because the published file fuses query, key and value: names stay those of the file.
Legend: B batch, N tokens (class token first), D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)
TEXT_WIDTH, TEXT_LAYERS, TEXT_VOCABULARY, TEXT_POSITIONS = 1024, 24, 250002, 514  # of the unused tower in the same file


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipConfig:
    image_size: int = 224
    patch: int = 14
    dim: int = 1280
    num_heads: int = 16
    num_layers: int = 32  # in the file
    layers_used: int = 31
    mlp_ratio: int = 4
    out_dim: int = 1024  # of the unused head
    eps: float = 1e-5

    @property
    def num_tokens(self) -> int:
        return (self.image_size // self.patch) ** 2 + 1


class ClipAttention(nn.Module):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x_BND: Tensor) -> Tensor:
        q, k, v = self.to_qkv(x_BND).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class ClipBlock(nn.Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        dim, hidden = config.dim, config.mlp_ratio * config.dim
        self.norm1, self.norm2 = nn.LayerNorm(dim, config.eps), nn.LayerNorm(dim, config.eps)
        self.attn = ClipAttention(dim, config.num_heads)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x_BND: Tensor) -> Tensor:
        x_BND = x_BND + self.attn(self.norm1(x_BND))
        return x_BND + self.mlp(self.norm2(x_BND))


class ClipVision(nn.Module):
    """Names as in the file, without its `visual.` prefix; only what is used."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embedding = nn.Conv2d(3, config.dim, config.patch, stride=config.patch, bias=False)
        self.cls_embedding = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.pos_embedding = nn.Parameter(torch.zeros(1, config.num_tokens, config.dim))
        self.pre_norm = nn.LayerNorm(config.dim, config.eps)
        self.transformer = nn.Sequential(*(ClipBlock(config) for _ in range(config.layers_used)))

    def forward(self, pixels_B3HW: Tensor) -> Tensor:
        """Pixels as `clip_pixels` gives them to tokens [B, N, D]."""
        patches = self.patch_embedding(pixels_B3HW).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_embedding.expand(len(patches), -1, -1), patches), dim=1) + self.pos_embedding
        return self.transformer(self.pre_norm(x))


def clip_pixels(pictures_B3HW: Tensor, size: int) -> Tensor:
    """Pictures in [-1, 1] of any shape, squeezed to a square and normalised."""
    x = F.interpolate(pictures_B3HW.float(), size=(size, size), mode="bicubic", align_corners=False) * 0.5 + 0.5
    mean, std = (torch.tensor(values, device=x.device).view(1, 3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
    return (x - mean) / std
