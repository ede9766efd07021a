"""The embedded preset's video autoencoder: a closed-form patch basis plus small learned corrections.

A frame becomes a 16x16 grid of `frame_channels` coefficients: the principal components of the data's own patches, corrected by a
convolutional path whose last layer starts at zero, so training only ever improves a sharp picture. Four frames are stacked
to one latent frame and rotated by an orthonormal DCT over time (mean, slope, ...), then scaled to unit variance: ready for flow
matching. Frames decode independently, so streaming decode equals whole decode exactly.
Legend: B batch, T latent frames, F video frames, C latent channels, H W pixels, h w latent pixels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import VAEConfig


def _start_at_zero(layer: nn.Conv2d) -> None:
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(F.silu(x))))


class EncoderCorrection(nn.Module):
    """Learned correction of the patch coefficients, zero at the start."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        width = config.width
        self.stem = nn.Conv2d(3 * 16, width // 2, 3, padding=1)
        self.down1 = nn.Conv2d(width // 2, width * 3 // 4, 3, stride=2, padding=1)
        self.down2 = nn.Conv2d(width * 3 // 4, width, 3, stride=2, padding=1)
        self.body = Residual(width)
        self.out = nn.Conv2d(width, config.frame_channels, 1)
        _start_at_zero(self.out)

    def forward(self, frames: Tensor) -> Tensor:
        x = self.stem(F.pixel_unshuffle(frames, 4))
        x = self.down2(F.silu(self.down1(F.silu(x))))
        return self.out(F.silu(self.body(x)))


class DecoderCorrection(nn.Module):
    """Learned correction of the decoded picture, zero at the start; works at 1/16, 1/8 and 1/4 of the picture size."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        width = config.width
        self.stem = nn.Conv2d(config.frame_channels, width, 3, padding=1)
        self.body16 = Residual(width)
        self.up8 = nn.Conv2d(width, width // 2 * 4, 1)
        self.body8 = Residual(width // 2)
        self.up4 = nn.Conv2d(width // 2, width // 4 * 4, 1)
        self.body4 = Residual(width // 4)
        self.out = nn.Conv2d(width // 4, 3 * 16, 3, padding=1)
        _start_at_zero(self.out)

    def forward(self, coefficients: Tensor) -> Tensor:
        x = self.body16(self.stem(coefficients))
        x = self.body8(F.pixel_shuffle(self.up8(F.silu(x)), 2))
        x = self.body4(F.pixel_shuffle(self.up4(F.silu(x)), 2))
        return F.pixel_shuffle(self.out(F.silu(x)), 4)


class PatchVAE(nn.Module):
    """Encode and decode video in [-1, 1]. `initialise` sets the closed form, `calibrate` the latent statistics."""

    latent_mean: Tensor
    latent_std: Tensor
    time_basis: Tensor

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.analysis = nn.Conv2d(3, config.frame_channels, config.patch, stride=config.patch)
        self.synthesis = nn.ConvTranspose2d(config.frame_channels, 3, config.patch, stride=config.patch)
        self.encoder = EncoderCorrection(config)
        self.decoder = DecoderCorrection(config)
        self.register_buffer("latent_mean", torch.zeros(config.latent_channels))
        self.register_buffer("latent_std", torch.ones(config.latent_channels))
        self.register_buffer("time_basis", dct_basis(config.time_stride), persistent=False)

    @torch.no_grad()
    def initialise(self, basis_CP: Tensor, scale_C: Tensor, mean_P: Tensor) -> None:
        """Closed form: orthonormal components [C, 3*patch*patch], their standard deviations and the mean patch."""
        shape = (-1, 3, self.config.patch, self.config.patch)
        self.analysis.weight.copy_((basis_CP / scale_C[:, None]).view(shape))
        assert self.analysis.bias is not None and self.synthesis.bias is not None
        self.analysis.bias.copy_(-(basis_CP @ mean_P) / scale_C)
        self.synthesis.weight.copy_((basis_CP * scale_C[:, None]).view(shape))
        self.synthesis.bias.copy_(mean_P.view(3, -1).mean(dim=1))

    def encode_frames(self, frames_FCHW: Tensor) -> Tensor:
        return self.analysis(frames_FCHW) + self.encoder(frames_FCHW)

    def decode_frames(self, coefficients_FChw: Tensor) -> Tensor:
        return self.synthesis(coefficients_FChw) + self.decoder(coefficients_FChw)

    def stack(self, coefficients_FChw: Tensor) -> Tensor:
        """Frame coefficients [F, c, h, w] to normalised latents [T, C, h, w], F = T * time_stride."""
        return self.stack_change(coefficients_FChw) - (self.latent_mean / self.latent_std)[:, None, None]

    def stack_change(self, change_FChw: Tensor) -> Tensor:
        """A difference of frame coefficients as a difference of normalised latents; the linear part of `stack`."""
        groups = change_FChw.unflatten(0, (-1, self.config.time_stride))
        rotated = torch.einsum("kj,tjchw->tkchw", self.time_basis.to(groups.dtype), groups).flatten(1, 2)
        return rotated / self.latent_std[:, None, None]

    def unstack(self, latents_TChw: Tensor) -> Tensor:
        scaled = latents_TChw * self.latent_std[:, None, None] + self.latent_mean[:, None, None]
        groups = scaled.unflatten(1, (self.config.time_stride, -1))
        return torch.einsum("kj,tkchw->tjchw", self.time_basis.to(groups.dtype), groups).flatten(0, 1)

    def encode(self, frames_FCHW: Tensor) -> Tensor:
        """Video [T * time_stride, 3, H, W] in [-1, 1] to latents [T, C, h, w]."""
        if frames_FCHW.shape[0] % self.config.time_stride:
            raise ValueError(f"frames must be a multiple of {self.config.time_stride}, got {frames_FCHW.shape[0]}")
        return self.stack(self.encode_frames(frames_FCHW))

    def encode_still(self, picture_CHW: Tensor) -> Tensor:
        """A still picture [3, H, W] as one latent frame [C, h, w]: the same frame for its whole duration."""
        one = self.encode_frames(picture_CHW[None])
        return self.stack(one.expand(self.config.time_stride, -1, -1, -1))[0]

    def decode(self, latents_TChw: Tensor) -> Tensor:
        """Latents [T, C, h, w] to video [T * time_stride, 3, H, W], about [-1, 1], not clamped."""
        return self.decode_frames(self.unstack(latents_TChw))


def dct_basis(length: int) -> Tensor:
    """Orthonormal DCT-II, float32 [component, sample]."""
    k, j = torch.arange(length)[:, None], torch.arange(length)[None]
    basis = torch.cos(math.pi * (j + 0.5) * k / length) * math.sqrt(2.0 / length)
    basis[0] /= math.sqrt(2.0)
    return basis.float()
