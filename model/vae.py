"""The embedded preset's video autoencoder: what moved and what was uncovered, told relative to a reference picture.

A talking face is its own portrait, moved before its backdrop (`model/layers.py`), plus little else. Head, lids and eyes move it as they
are told (`model/motion.py`), and a frame's latents only say what is different from the portrait so moved: the decoder, given the
portrait's features, turns them into a further displacement for every pixel of the person, which fetches the portrait's
texture, and into an opacity and a colour for what the portrait does not show (the inside of an opening mouth, shading), where upper teeth
are drawn already (`model/mouth.py`). Hair, glasses
and backdrop stay as sharp as the picture that was given, and identity has nowhere to drift to. Motion along a learnt field follows
first-order motion (arXiv 2003.00196); the reference as the decoder's input, FlashHead (arXiv 2602.07449).

A frame becomes a grid of `frame_channels` numbers a 16x16 pixels. Four frames are stacked to one latent frame and rotated by an
orthonormal DCT over time (mean, slope, ...), then scaled to unit variance: ready for flow matching. Frames decode independently,
so streaming decode equals whole decode exactly.
Legend: B batch, T latent frames, F video frames, c channels a frame, C = c * time_stride latent channels, H W pixels, h w latent pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import VAEConfig
from model.controls import NUM_CONTROLS
from model.fields import EyeFinder, MotionFields, PersonFinder, Residual, start_at_zero
from model.layers import Layers, behind, beyond, endless, matte_of
from model.lids import Lids, lids_of, skinned, with_lids
from model.motion import (
    BLINK,
    NUM_TERMS,
    PIXELS_PER_UNIT,
    Motion,
    Moved,
    Sources,
    fetch,
    move_layers,
    portrait_motion,
    terms,
)
from model.mouth import DEPTH, NUM_LIPS_PLANES, UpperTeeth, places_by_lips
from model.usual import Usual

COVER_BIAS = -6.0  # an untrained decoder uncovers nothing


@dataclass(frozen=True, slots=True)
class Reference:
    """The picture [B, 3, H, W] in [-1, 1], what the networks see in it, at 1/4, 1/8 and 1/16 of its size, where its lips are
    [B, NUM_LIPS_PLANES, H/4, W/4], how it moves [B, NUM_FIELDS, 2, H/2, W/2], where it shows eyes and the person, as logits [B, H, W], what
    is behind the person, the person without an end, and what its teeth add to the dark of a mouth [B, 3, H, W]."""

    picture: Tensor
    fine: Tensor
    middle: Tensor
    coarse: Tensor
    lips: Tensor
    fields: Tensor
    eyes: Tensor
    person: Tensor
    backdrop: Tensor
    endless: Tensor
    teeth: Tensor

    def one(self, index: int) -> Reference:
        """That portrait alone, as a batch of one."""
        return Reference(*(getattr(self, name)[index : index + 1] for name in Reference.__dataclass_fields__))

    def lids(self) -> Lids:
        return skinned(lids_of(self.eyes), self.picture)

    def moved(self, moves_FM: Tensor) -> Moved:
        """By moves [F, NUM_CONTROLS], frames of each portrait in a row."""
        layers = Layers.of(self.picture, matte_of(self.person), self.backdrop, self.endless)
        person = with_lids(layers.person, self.lids(), moves_FM[:, BLINK])
        return Moved(layers._replace(person=person), portrait_motion(self.fields, moves_FM))


@dataclass(frozen=True, slots=True)
class Canvas:
    """What a reference's features add to the decoder's, at 1/4, 1/8 and 1/16 of the picture's size, [B, c, h, w] each, and its teeth
    [B, 3, H, W]."""

    fine: Tensor
    middle: Tensor
    coarse: Tensor
    teeth: Tensor

    @staticmethod
    def cat(canvases: Sequence[Canvas]) -> Canvas:
        return Canvas(*(torch.cat([getattr(c, name) for c in canvases]) for name in Canvas.__dataclass_fields__))


class Region(NamedTuple):
    """A part of the picture, in latent pixels."""

    rows: slice
    columns: slice

    def of(self, x: Tensor, scale: int) -> Tensor:
        """That part of something that has `scale` pixels a latent pixel."""
        rows, columns = (slice(None) if s.stop is None else slice(s.start * scale, s.stop * scale) for s in self)
        return x[..., rows, columns]

    def within(self, part: Tensor, latents: Tensor, scale: int) -> Tensor:
        """That part in something that is zero elsewhere, with `scale` pixels for each of the latents'."""
        if self == WHOLE:
            return part
        whole = part.new_zeros(*part.shape[:2], *(side * scale for side in latents.shape[2:]))
        self.of(whole, scale).copy_(part)
        return whole


WHOLE = Region(slice(None), slice(None))


class Drawing(NamedTuple):
    """What frames are made of: where the portrait's pixels are fetched from, cover [F, 1, H, W] as logits, colour [F, 3, H, W], added."""

    sources: Sources
    cover: Tensor
    colour: Tensor


class Change(NamedTuple):
    """How frames differ from the portrait that is moved as told, in its own place: motion [F, 2, H/2, W/2] in pixels, cover [F, 1, H, W] as
    logits, colour [F, 3, H, W], added."""

    motion: Tensor
    cover: Tensor
    colour: Tensor

    def float(self) -> Change:
        """In single precision."""
        return Change(*(part.float() for part in self))

    def carried(self, along: Motion) -> Drawing:
        """With all that is told, in the picture's place."""
        painted = fetch(torch.cat((self.cover, self.colour), dim=1), along.head)
        return Drawing(along.total(self.motion), painted[:, :1], painted[:, 1:])


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
        self.eyes = EyeFinder(config)
        self.person = PersonFinder()
        self.fields = MotionFields()
        self.teeth = UpperTeeth()
        self.usual = nn.ModuleList(Usual(width, config.grid * scale) for width, scale in zip(config.widths, (4, 2, 1), strict=True))

    def features(self, picture_B3HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Fine, middle and coarse, as they are."""
        fine = self.fine(self.stem(F.pixel_unshuffle(picture_B3HW, 4)))
        middle = self.middle(self.down1(F.silu(fine)))
        return fine, middle, self.coarse(self.down2(F.silu(middle)))

    def of_people(self) -> list[Usual]:
        """What is usual of features, as `features` gives them."""
        return [cast(Usual, usual) for usual in self.usual]

    def forward(self, picture_B3HW: Tensor) -> Reference:
        features = self.features(picture_B3HW)
        eyes, person = self.eyes(picture_B3HW, *features), self.person(picture_B3HW)
        fine, middle, coarse = (usual(seen) for usual, seen in zip(self.of_people(), features, strict=True))
        matte = matte_of(person)
        fields = beyond(self.fields(picture_B3HW, matte), matte)
        backdrop, without_end = behind(picture_B3HW, matte), endless(picture_B3HW, matte)
        where = self.teeth.where(picture_B3HW)
        lips, teeth = places_by_lips(where, fine), self.teeth(picture_B3HW, where)
        return Reference(picture_B3HW, fine, middle, coarse, lips, fields, eyes, person, backdrop, without_end, teeth)


class FrameEncoder(nn.Module):
    """Frames beside the portrait, told moves undone, to latents."""

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
        self.lips = nn.Conv2d(NUM_LIPS_PLANES * 16, coarse, 3, padding=1, bias=False)
        self.out = nn.Conv2d(coarse, config.frame_channels, 1)

    def forward(self, frames_F3HW: Tensor, reference: Reference, moved: Moved) -> Tensor:
        """Frames of each reference in a row."""
        x = self.stem(F.pixel_unshuffle(moved.in_place(frames_F3HW), 4))
        x = self.detail(F.silu(x))
        x = self.middle(self.down1(F.silu(x)))
        x = self.coarse(self.down2(F.silu(x)))
        lips = self.lips(F.pixel_unshuffle(reference.lips, 4).to(x.dtype))
        x = self.join(F.silu(torch.cat((x, _each(reference.coarse, len(x))), dim=1))) + _each(lips, len(x))
        return self.out(F.silu(x))


class FrameDecoder(nn.Module):
    """Latents beside the reference's features and what is told to what further changes; nothing when untrained.

    All in the portrait's own place: where a head turns to is not the decoder's business, so lips are always in the same latent pixels. What
    turning changes beside places (light, what an edge uncovers) it may follow from the moves. A convolution over latents and features is
    the sum of one over each, and the reference's is made once, in `canvas`.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        fine, middle, coarse = config.widths
        self.stem = nn.Conv2d(config.frame_channels, coarse, 3, padding=1)
        self.told = nn.Linear(NUM_TERMS, coarse, bias=False)
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
        planes = (NUM_LIPS_PLANES, NUM_LIPS_PLANES * 4, NUM_LIPS_PLANES * 16)
        self.lips = nn.ModuleList(nn.Conv2d(n, width, 3, padding=1, bias=False) for n, width in zip(planes, config.widths, strict=True))
        nn.init.zeros_(self.told.weight)
        start_at_zero(self.motion)
        start_at_zero(self.paint)

    def canvas(self, reference: Reference) -> Canvas:
        seen = (F.silu(reference.fine), F.silu(reference.middle), reference.coarse)
        dtype = self.stem.weight.dtype
        lips = (F.pixel_unshuffle(reference.lips, scale) for scale in (1, 2, 4))
        fine, middle, coarse = (
            known(x.to(dtype)) + by_lips(at.to(dtype)) for known, by_lips, x, at in zip(self.known, self.lips, seen, lips, strict=True)
        )
        return Canvas(fine, middle, coarse, reference.teeth)

    def features(self, latents_Fchw: Tensor, canvas: Canvas, moves_FM: Tensor, region: Region = WHOLE) -> Tensor:
        """What the last layers see [F, c, H/4, W/4]. The same number of frames for each reference, in its order.

        Outside of `region` only the coarse level is computed: training looks harder at a mouth than at a backdrop.
        """
        fine, middle, coarse = (_each(known, len(latents_Fchw)) for known in (canvas.fine, canvas.middle, canvas.coarse))
        told = self.told(terms(moves_FM).to(self.told.weight.dtype))[..., None, None]
        # Latents come first: a sum has the layout of what is first, and channels last is twice as fast from there on.
        x = region.of(self.coarse(self.stem(latents_Fchw) + coarse + told), 1)
        x = self.middle(self.join2(F.silu(_widened(F.silu(x), self.up2))) + region.of(middle, 2))
        return F.silu(self.fine(self.join1(F.silu(_widened(F.silu(x), self.up1))) + region.of(fine, 4)))

    def forward(self, latents_Fchw: Tensor, canvas: Canvas, moves_FM: Tensor, region: Region = WHOLE) -> Change:
        """Nothing changes outside of the region."""
        x = self.features(latents_Fchw, canvas, moves_FM, region)
        cover, colour = F.pixel_shuffle(self.paint(x), 4).split((1, 3), dim=1)
        bare = torch.sigmoid(cover.float() + COVER_BIAS) * _each(region.of(canvas.teeth, 16), len(cover))
        cover, colour = region.within(torch.cat((cover, colour + bare), dim=1), latents_Fchw, 16).split((1, 3), dim=1)
        further = region.within(F.pixel_shuffle(self.motion(x), 2), latents_Fchw, 8) * PIXELS_PER_UNIT
        return Change(further, cover + COVER_BIAS, colour)


def _each(known_Bchw: Tensor, num_frames: int) -> Tensor:
    """Of each of the frames' portraits, frames of each in a row."""
    return known_Bchw.repeat_interleave(num_frames // len(known_Bchw), 0)


def _widened(x_Fchw: Tensor, layer: nn.Conv2d) -> Tensor:
    """A 1x1 convolution to four times the channels, laid out as twice the size; as a matrix product, which a CPU does several times
    faster."""
    wide = F.linear(x_Fchw.movedim(1, -1), layer.weight.flatten(1), layer.bias)
    return F.pixel_shuffle(wide.movedim(-1, 1), 2)


class ReferenceVAE(nn.Module):
    """Encode and decode video in [-1, 1] against a reference. `calibrate` in training sets the statistics of latents, and of those of
    references standing still."""

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
        self.usual_still = Usual(config.frame_channels, config.grid)
        self.register_buffer("time_basis", dct_basis(config.time_stride), persistent=False)

    def decode_frames(self, latents_Fchw: Tensor, reference: Reference, moves_FM: Tensor) -> Tensor:
        """Frames of each reference in a row, moved by moves [F, NUM_CONTROLS]; pictures [F, 3, H, W], about [-1, 1], not clamped."""
        at = reference.moved(moves_FM)
        return compose(at.layers, self.decoder(latents_Fchw, self.decoder.canvas(reference), moves_FM).carried(at.motion))

    def stack(self, frames_Fchw: Tensor) -> Tensor:
        """Latents a frame [F, c, h, w] to normalised latent frames [T, C, h, w], F = T * time_stride."""
        groups = frames_Fchw.unflatten(0, (-1, self.config.time_stride))
        rotated = torch.einsum("kj,tjchw->tkchw", self.time_basis.to(groups.dtype), groups).flatten(1, 2)
        return (rotated - self.latent_mean[:, None, None]) / self.latent_std[:, None, None]

    def unstack(self, latents_TChw: Tensor) -> Tensor:
        scaled = latents_TChw * self.latent_std[:, None, None] + self.latent_mean[:, None, None]
        groups = scaled.unflatten(1, (self.config.time_stride, -1))
        return torch.einsum("kj,tkchw->tjchw", self.time_basis.to(groups.dtype), groups).flatten(0, 1)

    def encode(self, frames_F3HW: Tensor, reference: Reference, moves_FM: Tensor) -> Tensor:
        """Video [T * time_stride, 3, H, W] in [-1, 1] and its reference (a batch of one) to latents [T, C, h, w].

        Moves [F, NUM_CONTROLS] are controls less the reference's own; where they are not known zero will do: latents then say those, too.
        """
        if frames_F3HW.shape[0] % self.config.time_stride:
            raise ValueError(f"frames must be a multiple of {self.config.time_stride}, got {frames_F3HW.shape[0]}")
        return self.stack(self.encoder(frames_F3HW, reference, reference.moved(moves_FM)))

    def encode_still(self, reference: Reference) -> Tensor:
        """The references themselves, standing still, as latent frames [B, C, h, w], near those of people that training saw: the transformer
        starts from them, and on photographs, whose own are further off, it hardly opens the lips."""
        one = self.usual_still(self.still_frame(reference))
        return self.stack(one.repeat_interleave(self.config.time_stride, dim=0))

    def still_frame(self, reference: Reference) -> Tensor:
        """The references themselves as latents a frame [B, c, h, w]."""
        still = reference.moved(reference.picture.new_zeros(len(reference.picture), NUM_CONTROLS))
        return self.encoder(reference.picture, reference, still)

    def decode(self, latents_TChw: Tensor, reference: Reference, moves_FM: Tensor) -> Tensor:
        """Latents [T, C, h, w], those of each reference in a row, to video [T * time_stride, 3, H, W], about [-1, 1], not clamped."""
        return self.decode_frames(self.unstack(latents_TChw), reference, moves_FM)


def compose(layers: Layers, drawing: Drawing) -> Tensor:
    """The people moved, over their backdrops, covered and painted on, frames of each in a row [F, 3, H, W]; the portraits themselves where
    nothing changes."""
    shown = move_layers(layers, drawing.sources)
    cover = torch.sigmoid(drawing.cover.float())
    return shown + cover * (shown.new_tensor(DEPTH)[:, None, None] - shown) + drawing.colour.float()


def dct_basis(length: int) -> Tensor:
    """Orthonormal DCT-II, float32 [component, sample]."""
    k, j = torch.arange(length)[:, None], torch.arange(length)[None]
    basis = torch.cos(math.pi * (j + 0.5) * k / length) * math.sqrt(2.0 / length)
    basis[0] /= math.sqrt(2.0)
    return basis.float()
