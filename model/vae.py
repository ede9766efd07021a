"""The embedded preset's video autoencoder: what moved and what was uncovered, told relative to a reference picture.

A talking face is its own portrait, moved, plus little else. So the decoder is given features of the portrait, made once a session,
and a frame's latents only say what is different from it: the decoder turns them into a displacement for every pixel, which
fetches the portrait's texture, and into an opacity and a colour for what the portrait does not show (the inside of an opening
mouth, lids, shading). Hair, glasses and backdrop stay as sharp as the picture that was given, and identity has nowhere to drift
to. Motion along a learnt field follows first-order motion (arXiv 2003.00196); the reference as the decoder's input, FlashHead
(arXiv 2602.07449).

A frame becomes a grid of `frame_channels` numbers a 16x16 pixels. Four frames are stacked to one latent frame and rotated by an
orthonormal DCT over time (mean, slope, ...), then scaled to unit variance: ready for flow matching. Frames decode independently,
so streaming decode equals whole decode exactly.
Legend: B batch, T latent frames, F video frames, c channels a frame, C = c * time_stride latent channels, H W pixels, h w latent pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import VAEConfig

PIXELS_PER_UNIT = 8.0  # displacement that a decoder output of 1 stands for
COVER_BIAS = -6.0  # an untrained decoder uncovers nothing
DEPTH = (-0.8, -0.9, -0.9)  # what a cover shows before any colour is added: the dark of a mouth


@dataclass(frozen=True, slots=True)
class Reference:
    """The picture [B, 3, H, W] in [-1, 1] and what the networks see in it, at 1/4, 1/8 and 1/16 of its size."""

    picture: Tensor
    fine: Tensor
    middle: Tensor
    coarse: Tensor

    def expand(self, count: int) -> Reference:
        """A batch of one, for `count` frames."""
        return Reference(*(part.expand(count, -1, -1, -1) for part in (self.picture, self.fine, self.middle, self.coarse)))


@dataclass(frozen=True, slots=True)
class Canvas:
    """A reference as the decoder draws on it: the picture [B, 3, H, W], and what its features add to the decoder's, [B, c, h, w]."""

    picture: Tensor
    fine: Tensor
    middle: Tensor
    coarse: Tensor

    @staticmethod
    def cat(canvases: Sequence[Canvas]) -> Canvas:
        return Canvas(*(torch.cat([getattr(c, name) for c in canvases]) for name in ("picture", "fine", "middle", "coarse")))


class Region(NamedTuple):
    """A part of the picture, in latent pixels."""

    rows: slice
    columns: slice

    def of(self, x: Tensor, scale: int) -> Tensor:
        """That part of something that has `scale` pixels a latent pixel."""
        rows, columns = (slice(None) if s.stop is None else slice(s.start * scale, s.stop * scale) for s in self)
        return x[..., rows, columns]


WHOLE = Region(slice(None), slice(None))


class Change(NamedTuple):
    """How frames differ from the reference: motion [F, 2, H/2, W/2] in pixels, cover [F, 1, H, W] as logits, colour [F, 3, H, W], added."""

    motion: Tensor
    cover: Tensor
    colour: Tensor


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        _start_at_zero(self.second)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(F.silu(x))))


class ReferenceEncoder(nn.Module):
    """A portrait's features, made once a session."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        fine, middle, coarse = config.widths
        self.stem = nn.Conv2d(3 * 16, fine, 3, padding=1)
        self.fine = Residual(fine)
        self.down1 = nn.Conv2d(fine, middle, 3, stride=2, padding=1)
        self.middle = Residual(middle)
        self.down2 = nn.Conv2d(middle, coarse, 3, stride=2, padding=1)
        self.coarse = nn.Sequential(Residual(coarse), Residual(coarse), Residual(coarse))

    def forward(self, picture_B3HW: Tensor) -> Reference:
        fine = self.fine(self.stem(F.pixel_unshuffle(picture_B3HW, 4)))
        middle = self.middle(self.down1(F.silu(fine)))
        coarse = self.coarse(self.down2(F.silu(middle)))
        return Reference(picture_B3HW, fine, middle, coarse)


class FrameEncoder(nn.Module):
    """Frames beside their reference to latents."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        _, middle, coarse = config.widths
        self.stem = nn.Conv2d(2 * 3 * 16, 32, 1)
        self.detail = nn.Conv2d(32, 32, 3, padding=1)
        self.down1 = nn.Conv2d(32, middle, 3, stride=2, padding=1)
        self.middle = Residual(middle)
        self.down2 = nn.Conv2d(middle, coarse, 3, stride=2, padding=1)
        self.coarse = Residual(coarse)
        self.join = nn.Conv2d(2 * coarse, coarse, 3, padding=1)
        self.out = nn.Conv2d(coarse, config.frame_channels, 1)

    def forward(self, frames_F3HW: Tensor, reference: Reference) -> Tensor:
        x = self.stem(F.pixel_unshuffle(torch.cat((frames_F3HW, reference.picture), dim=1), 4))
        x = self.detail(F.silu(x))
        x = self.middle(self.down1(F.silu(x)))
        x = self.coarse(self.down2(F.silu(x)))
        x = self.join(F.silu(torch.cat((x, reference.coarse), dim=1)))
        return self.out(F.silu(x))


class FrameDecoder(nn.Module):
    """Latents beside the reference's features to what changed; nothing, when untrained.

    A convolution over both is the sum of one over each, and the reference's is made once, in `canvas`.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        fine, middle, coarse = config.widths
        self.stem = nn.Conv2d(config.frame_channels, coarse, 3, padding=1)
        self.coarse = nn.Sequential(Residual(coarse), Residual(coarse))
        self.up2 = nn.Conv2d(coarse, 4 * middle, 1)
        self.join2 = nn.Conv2d(middle, middle, 3, padding=1)
        self.middle = Residual(middle)
        self.up1 = nn.Conv2d(middle, 4 * fine, 1)
        self.join1 = nn.Conv2d(fine, fine, 3, padding=1)
        self.fine = Residual(fine)
        self.motion = nn.Conv2d(fine, 2 * 4, 3, padding=1)
        self.paint = nn.Conv2d(fine, 4 * 16, 3, padding=1)
        self.known = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for width in config.widths)
        _start_at_zero(self.motion)
        _start_at_zero(self.paint)

    def canvas(self, reference: Reference) -> Canvas:
        seen = (F.silu(reference.fine), F.silu(reference.middle), reference.coarse)
        added = (layer(x.to(self.stem.weight.dtype)) for layer, x in zip(self.known, seen, strict=True))
        return Canvas(reference.picture, *added)

    def features(self, latents_Fchw: Tensor, canvas: Canvas, region: Region = WHOLE) -> Tensor:
        """What the last layers see [F, c, H/4, W/4]. The same number of frames for each reference, in its order.

        Outside of `region` only the coarse level is computed: training looks harder at a mouth than at a backdrop.
        """
        x = region.of(self.coarse(_onto(canvas.coarse, self.stem(latents_Fchw))), 1)
        x = self.middle(_onto(region.of(canvas.middle, 2), self.join2(F.silu(_widened(F.silu(x), self.up2)))))
        return F.silu(self.fine(_onto(region.of(canvas.fine, 4), self.join1(F.silu(_widened(F.silu(x), self.up1))))))

    def forward(self, latents_Fchw: Tensor, canvas: Canvas, region: Region = WHOLE) -> Change:
        x = self.features(latents_Fchw, canvas, region)
        cover, colour = F.pixel_shuffle(self.paint(x), 4).split((1, 3), dim=1)
        return Change(F.pixel_shuffle(self.motion(x), 2) * PIXELS_PER_UNIT, cover + COVER_BIAS, colour)


def _onto(known_Bchw: Tensor, x_Fchw: Tensor) -> Tensor:
    return (x_Fchw.unflatten(0, (len(known_Bchw), -1)) + known_Bchw[:, None]).flatten(0, 1)


def _widened(x_Fchw: Tensor, layer: nn.Conv2d) -> Tensor:
    """A 1x1 convolution to four times the channels, laid out as twice the size; as a matrix product, which a CPU does several times
    faster."""
    wide = F.linear(x_Fchw.movedim(1, -1), layer.weight.flatten(1), layer.bias)
    return F.pixel_shuffle(wide.movedim(-1, 1), 2)


class ReferenceVAE(nn.Module):
    """Encode and decode video in [-1, 1] against a reference. `calibrate` in training sets the latent statistics."""

    latent_mean: Tensor
    latent_std: Tensor
    time_basis: Tensor

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.reference = ReferenceEncoder(config)
        self.encoder = FrameEncoder(config)
        self.decoder = FrameDecoder(config)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.weight.any():
                # Without norms the size of the features is the initialisation's: torch's default shrinks them layer by layer.
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        self.register_buffer("latent_mean", torch.zeros(config.latent_channels))
        self.register_buffer("latent_std", torch.ones(config.latent_channels))
        self.register_buffer("time_basis", dct_basis(config.time_stride), persistent=False)

    def decode_frames(self, latents_Fchw: Tensor, reference: Reference) -> Tensor:
        """Frames of each reference in a row; pictures [F, 3, H, W], about [-1, 1], not clamped."""
        return compose(reference.picture, self.decoder(latents_Fchw, self.decoder.canvas(reference)))

    def stack(self, frames_Fchw: Tensor) -> Tensor:
        """Latents a frame [F, c, h, w] to normalised latent frames [T, C, h, w], F = T * time_stride."""
        groups = frames_Fchw.unflatten(0, (-1, self.config.time_stride))
        rotated = torch.einsum("kj,tjchw->tkchw", self.time_basis.to(groups.dtype), groups).flatten(1, 2)
        return (rotated - self.latent_mean[:, None, None]) / self.latent_std[:, None, None]

    def unstack(self, latents_TChw: Tensor) -> Tensor:
        scaled = latents_TChw * self.latent_std[:, None, None] + self.latent_mean[:, None, None]
        groups = scaled.unflatten(1, (self.config.time_stride, -1))
        return torch.einsum("kj,tkchw->tjchw", self.time_basis.to(groups.dtype), groups).flatten(0, 1)

    def encode(self, frames_F3HW: Tensor, reference: Reference) -> Tensor:
        """Video [T * time_stride, 3, H, W] in [-1, 1] and its reference (a batch of one) to latents [T, C, h, w]."""
        if frames_F3HW.shape[0] % self.config.time_stride:
            raise ValueError(f"frames must be a multiple of {self.config.time_stride}, got {frames_F3HW.shape[0]}")
        return self.stack(self.encoder(frames_F3HW, reference.expand(len(frames_F3HW))))

    def encode_still(self, reference: Reference) -> Tensor:
        """The references themselves, standing still, as latent frames [B, C, h, w]."""
        one = self.encoder(reference.picture, reference)
        return self.stack(one.repeat_interleave(self.config.time_stride, dim=0))

    def decode(self, latents_TChw: Tensor, reference: Reference) -> Tensor:
        """Latents [T, C, h, w], those of each reference in a row, to video [T * time_stride, 3, H, W], about [-1, 1], not clamped."""
        return self.decode_frames(self.unstack(latents_TChw), reference)


def compose(picture_B3HW: Tensor, change: Change) -> Tensor:
    """The pictures moved, covered and painted on, frames of each in a row [F, 3, H, W]; themselves where nothing changes."""
    moved = fetch(picture_B3HW.float(), change.motion.float())
    cover = torch.sigmoid(change.cover.float())
    return moved + cover * (moved.new_tensor(DEPTH)[:, None, None] - moved) + change.colour.float()


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
    return F.grid_sample(repeated, sources.movedim(1, -1), padding_mode="border", align_corners=False)


def pixel_grid(rows: int, columns: int, device: torch.device) -> Tensor:
    """Where each pixel is, in grid_sample's coordinates [H, W, 2], x before y."""
    y = (torch.arange(rows, device=device) + 0.5) * 2.0 / rows - 1.0
    x = (torch.arange(columns, device=device) + 0.5) * 2.0 / columns - 1.0
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def dct_basis(length: int) -> Tensor:
    """Orthonormal DCT-II, float32 [component, sample]."""
    k, j = torch.arange(length)[:, None], torch.arange(length)[None]
    basis = torch.cos(math.pi * (j + 0.5) * k / length) * math.sqrt(2.0 / length)
    basis[0] /= math.sqrt(2.0)
    return basis.float()


def _start_at_zero(layer: nn.Conv2d) -> None:
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
