"""The autoencoder's decoder as serving runs it: latents to I420 frames, never through RGB.

What the decoder paints on the moved portrait is linear in its last layer, and so is the way from RGB to luma and chroma. So that layer
is turned once, at load, into one that paints luma at full and chroma at half size, and the portrait is kept as such planes: 5/8 of the
last layer's work, half of the pixels to move, and no conversion. `tests/model/test_networks.py` holds it against the RGB path.
Legend: B references, F frames, c channels a frame, H W pixels, h w latent pixels.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.yuv import MATRIX, OFFSET, SWING
from model.layers import Layers, matte_of
from model.lids import Lids, with_lids
from model.motion import BLINK, PIXELS_PER_UNIT, Sources, fetch, move_layers, portrait_motion
from model.mouth import DEPTH, around_mouth
from model.vae import COVER_BIAS, Canvas, FrameDecoder, Reference


@dataclass(frozen=True, slots=True)
class I420Canvas:
    """A portrait to draw on: layers of luma [B, 1, H, W] and of chroma [B, 2, H/2, W/2], without their offsets, its lids, how it moves
    [B, NUM_FIELDS, 2, H/2, W/2], and its features' share in the decoder's, with what its teeth add to luma and chroma."""

    luma: Layers
    chroma: Layers
    lids: Lids
    fields: Tensor
    features: Canvas

    @staticmethod
    def cat(canvases: Sequence[I420Canvas]) -> I420Canvas:
        if len(canvases) == 1:
            return canvases[0]
        luma, chroma = (Layers.cat([getattr(c, name) for c in canvases]) for name in ("luma", "chroma"))
        fields, features = torch.cat([c.fields for c in canvases]), Canvas.cat([c.features for c in canvases])
        return I420Canvas(luma, chroma, Lids.cat([c.lids for c in canvases]), fields, features)


class I420Decoder(nn.Module):
    """Made from a trained decoder, in a working precision; coordinates and planes are float32."""

    depth: Tensor
    to_planes: Tensor
    offset: Tensor

    def __init__(self, decoder: FrameDecoder, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        matrix = torch.tensor(MATRIX) * torch.tensor(SWING)[:, None]
        self.register_buffer("to_planes", matrix)
        self.register_buffer("offset", torch.tensor(OFFSET))
        self.register_buffer("depth", matrix @ torch.tensor(DEPTH))
        self.trunk = copy.deepcopy(decoder)
        self.last = self._last_layer(decoder)
        self.to(device)
        for layer in (self.trunk, self.last):
            layer.to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _last_layer(self, decoder: FrameDecoder) -> nn.Conv2d:
        """Motion 8, cover 16, luma 16 and chroma 2 x 4 channels from motion 8, cover 16 and RGB 3 x 16."""
        old = decoder.paint
        last = nn.Conv2d(old.in_channels, 48, 3, padding=1)
        for new, motion, paint in ((last.weight, decoder.motion.weight, old.weight), (last.bias, decoder.motion.bias, old.bias)):
            assert new is not None and motion is not None and paint is not None
            cover, colour = paint.detach()[:16], paint.detach()[16:].unflatten(0, (3, 16))
            luma, *chroma = torch.einsum("pc,cs...->ps...", self.to_planes, colour)
            # The 4x4 pixels of a cell, as 2x2 of 2x2: the mean of each is a pixel of chroma.
            halved = [plane.unflatten(0, (2, 2, 2, 2)).mean(dim=(1, 3)).flatten(0, 1) for plane in chroma]
            with torch.no_grad():
                new.copy_(torch.cat((motion, cover, luma, *halved)))
        return last

    def canvas(self, reference: Reference) -> I420Canvas:
        matte = matte_of(reference.person)
        pictures = torch.stack((reference.picture, reference.backdrop, reference.endless)).float()
        shown, behind, endless = torch.einsum("pc,nbchw->nbphw", self.to_planes, pictures)
        luma = Layers.of(shown[:, :1], matte, behind[:, :1], endless[:, :1])
        chroma = Layers.of(*(F.avg_pool2d(x, 2) for x in (shown[:, 1:], matte, behind[:, 1:], endless[:, 1:])))
        teeth = torch.einsum("pc,bchw->bphw", self.to_planes, reference.teeth.float())
        features = replace(self.trunk.canvas(reference), teeth=teeth)
        return I420Canvas(luma, chroma, reference.lids(), reference.fields, features)

    def forward(self, latents_Fchw: Tensor, canvas: I420Canvas, moves_FM: Tensor) -> Tensor:
        """uint8 [F, H*3//2, W], the same number of frames for each portrait, in its order, moved by moves [F, NUM_CONTROLS]."""
        told = portrait_motion(canvas.fields, moves_FM)
        latents = latents_Fchw.to(self.last.weight.dtype, memory_format=torch.channels_last)
        x = self.trunk.features(latents, canvas.features, moves_FM)
        motion, cover, luma, chroma = self.last(x).float().split((8, 16, 16, 8), dim=1)
        sources = told.total(_planes(motion, 2) * PIXELS_PER_UNIT)
        cover = torch.sigmoid(_planes(cover, 4) + COVER_BIAS)
        luma, chroma = _planes(luma, 4), _planes(chroma, 2)
        teeth = around_mouth(canvas.features.teeth)
        bare = around_mouth(cover) * teeth.repeat_interleave(len(cover) // len(teeth), 0)
        around_mouth(luma).add_(bare[:, :1])
        around_mouth(chroma).add_(F.avg_pool2d(bare[:, 1:], 2))
        painted = fetch(torch.cat((cover, luma), dim=1), told.head)
        halved_painted = fetch(torch.cat((F.avg_pool2d(cover, 2), chroma), dim=1), told.head)
        full, halved = canvas.luma, canvas.chroma
        if (blink := moves_FM[:, BLINK]).any():  # seldom
            full = full._replace(person=with_lids(full.person, canvas.lids, blink))
            halved = halved._replace(person=with_lids(halved.person, canvas.lids.halved(), blink))
        y = self._paint(full, sources, painted, slice(0, 1))
        uv = self._paint(halved, sources, halved_painted, slice(1, 3))
        return to_pixels(joined(y, uv))

    def planes(self, pictures_F3HW: Tensor) -> Tensor:
        """Pictures in [-1, 1] as what is drawn should be, float32 [F, H*3//2, W], not rounded."""
        whole = torch.einsum("pc,fchw->fphw", self.to_planes, pictures_F3HW.float()) + self.offset[:, None, None]
        return joined(whole[:, :1], F.avg_pool2d(whole[:, 1:], 2))

    def _paint(self, layers: Layers, sources: Sources, painted: Tensor, which: slice) -> Tensor:
        """painted: cover, then colours [F, 1 + p, H, W]."""
        depth, offset = (of_planes[which, None, None] for of_planes in (self.depth, self.offset))
        shown = move_layers(layers, sources)
        return torch.lerp(shown, depth.expand_as(shown), painted[:, :1].expand_as(shown)).add_(painted[:, 1:]).add_(offset)


def to_pixels(planes: Tensor) -> Tensor:
    """Planes 0..255 as uint8."""
    return planes.round().clamp_(0, 255).to(torch.uint8)


def joined(luma_F1HW: Tensor, chroma_F2hw: Tensor) -> Tensor:
    """Planes one below the other, as in I420 [F, H*3//2, W]."""
    return torch.cat((luma_F1HW.flatten(1), chroma_F2hw.flatten(1)), dim=1).view(len(luma_F1HW), -1, luma_F1HW.shape[-1])


def _planes(x_Fchw: Tensor, factor: int) -> Tensor:
    """Pixel shuffle from the convolutions' layout (channels last) to contiguous planes, where what follows is several times faster."""
    cells = x_Fchw.movedim(1, -1).unflatten(-1, (-1, factor, factor))
    return cells.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
