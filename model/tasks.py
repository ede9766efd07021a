"""What a session is told beyond its sound: tasks as what is known of each new latent frame, and how the rest goes on from it.

Every task runs through the same window, sampler and decoder. Talk knows nothing of a new frame; in lip-sync all is known but the mouth; of
first and last picture, the frames with which the last chunk ends. The mask tells the network so, as in its training
(`model/training/soup.py`). Between sampler and decoder the known part is put in: it tells how wrong the answer is there, and that error is
carried on smoothly, in space or in time, to where the answer stands alone.
Moves are controls less the portrait's own. Legend: F video frames of a chunk, c channels a frame, h w latent pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.conditions import masked_video
from model.i420_decoder import joined
from model.mouth import mouth_mask
from model.pose import PoseReader
from model.vae import Reference, ReferenceVAE
from model.window import Known

# The latents of a chunk's video frames [F, c, h, w] as predicted, to those that are shown.
Finish = Callable[[Tensor], Tensor]


class Told(NamedTuple):
    """Of one chunk: its moves [F, NUM_CONTROLS], what is known of its latent frame, what makes of the prediction what is drawn, and of the
    drawn frames, float I420 [F, H*3//2, W], those that are shown."""

    moves: np.ndarray
    known: Known | None
    finish: Finish
    retouch: Callable[[Tensor], Tensor] | None = None


FADE_FRAMES = 20  # within which sway and blinks come and go beside a first or last picture
# Within which lips do, and the last picture's detail comes: sooner, outlines that are not there yet would be seen twice.
MEET_FRAMES = 10
# As shares of the picture: how far below the upper teeth the middle of an open mouth is, and how far from there lip-sync draws lips; up to
# which share of that, all of them.
_BELOW_TEETH, _LIPS_REACH, _LIPS_WHOLE = 0.075, 0.125, 0.8
# Two turns of the head may add up to one that training never showed: the sway is halved where another movement carries it.
_RIDING = np.array([0.5] * 5 + [1.0] * 5, dtype=np.float32)


class Task(Protocol):
    def told(self, frame: int, moves: np.ndarray) -> Told:
        """For the chunk that starts at video frame `frame` and would move by `moves` [F, NUM_CONTROLS]."""
        ...


class Talk:
    """Sound and controller alone: talking, image to video, text to video."""

    def told(self, frame: int, moves: np.ndarray) -> Told:
        return Told(moves, None, lambda predicted: predicted)


class Ends(NamedTuple):
    """Two pictures of one person: the head's moves that each is of [2, NUM_CONTROLS], latents so moved [2, c, h, w], and what the network
    answers there to silence [2, c, h, w]; missing, the last picture less what its latents are drawn as, I420 [H*3//2, W]; fill, what the
    window takes frames for that are not known [C, h, w]."""

    moves: Tensor
    latents: Tensor
    answers: Tensor
    missing: Tensor
    fill: Tensor


class Between:
    """Starts at one picture and ends at another of the same person.

    The head is led from the pose of the first to that of the last. The last is told as known with the chunk that it ends; where the network
    answers something else at either end, that is carried along the way. Sway, lids and lips ride on it, and fade where a picture is to be
    met exactly. What latents cannot say of the last picture (what the first did not show) comes at the very end.
    """

    def __init__(self, vae: ReferenceVAE, ends: Ends, num_frames: int) -> None:
        self._vae, self._ends, self._last = vae, ends, num_frames - 1
        self._way = ends.moves.cpu().numpy()

    def told(self, frame: int, moves: np.ndarray) -> Told:
        at = torch.arange(frame, frame + len(moves)).to(self._ends.latents)[:, None, None, None]
        way = _smooth(at / max(self._last, 1))
        riding, meeting = self._near(at, FADE_FRAMES), self._near(at, MEET_FRAMES)

        def finish(predicted: Tensor) -> Tensor:
            shown, answered = (torch.lerp(both[:1], both[1:], way) for both in (self._ends.latents, self._ends.answers))
            return shown + (1 - meeting.sum(dim=1, keepdim=True)).clamp(min=0.0) * (predicted - answered)

        led = self._way[:1] + way.flatten(1).cpu().numpy() * (self._way[1:] - self._way[:1])
        sway = _RIDING * (1 - riding.sum(dim=1)).clamp(min=0.0).flatten(1).cpu().numpy()
        met = meeting[:, 1] * self._ends.missing
        return Told(led + moves * sway, self._known(frame, len(moves)), finish, (lambda drawn: drawn + met) if met.any() else None)

    def _near(self, at: Tensor, frames: int) -> Tensor:
        """How near the first and the last frame are [F, 2, 1, 1], 1 there."""
        reach = min(frames, max(self._last / 2, 1))
        return _smooth(1 - torch.cat((at, self._last - at), dim=1) / reach)

    def _known(self, frame: int, num_frames: int) -> Known | None:
        if frame + num_frames <= self._last:
            return None
        last = self._vae.stack(self._ends.latents[1].expand(num_frames, -1, -1, -1))[0]
        where = torch.zeros(num_frames, *last.shape[1:]).to(last)
        where[max(self._last - frame, 0) :] = 1.0
        return Known(masked_video(self._ends.fill, last, where, self._vae.latent_std), where)


class LipSync:
    """The pictures of a clip, relative to one of them with closed lips; all is known but the mouth.

    Shown is the clip but for the lips and what lies around them, wherever the head takes them.
    """

    def __init__(
        self, vae: ReferenceVAE, reference: Reference, pictures: Callable[[int], Tensor], planes: Callable[[Tensor], Tensor]
    ) -> None:  # fmt: skip
        """pictures: for a chunk's first frame, [F, 3, H, W] in [-1, 1]; planes: from those to I420 [F, H*3//2, W]."""
        self._vae, self._reference, self._pictures, self._planes = vae, reference, pictures, planes
        self._pose = PoseReader(vae, reference)
        self._still = vae.encode_still(reference)[0]
        self._lips = place_of_lips(reference.teeth.float())
        self._outside = 1.0 - mouth_mask()
        self._carry = smooth_continuation(mouth_mask())

    def told(self, frame: int, moves: np.ndarray) -> Told:
        pictures = self._pictures(frame)
        fitted = self._pose(pictures)
        moved = self._reference.moved(fitted)
        true = self._vae.encoder(pictures, self._reference, moved)

        def finish(predicted: Tensor) -> Tensor:
            wrong = (true - predicted).flatten(2)
            return predicted + (wrong @ self._carry.to(wrong).T).unflatten(2, true.shape[2:])

        where = self._outside.to(true).expand(len(true), -1, -1)
        known = masked_video(self._still, self._vae.stack(true)[0], where, self._vae.latent_std)
        lips = lips_masks(self._lips, moved.motion.shift, pictures.shape[-1])
        redrawn, shown = joined(lips, F.avg_pool2d(lips, 2).expand(-1, 2, -1, -1)), self._planes(pictures)
        return Told(fitted.cpu().numpy(), Known(known, where), finish, lambda drawn: torch.lerp(shown, drawn, redrawn))


def place_of_lips(teeth_13HW: Tensor) -> Tensor:
    """The middle of a portrait's mouth, open, in pixels [2], x before y: a little below where its upper teeth are behind its lips."""
    shown = teeth_13HW.abs().sum(dim=1)[0]
    pixels = (torch.arange(len(shown)) + 0.5).to(shown)
    middle = torch.stack([(shown.sum(dim=dim) * pixels).sum() / shown.sum().clamp(min=1e-6) for dim in (0, 1)])
    return middle + middle.new_tensor([0.0, _BELOW_TEETH * len(shown)])


def lips_masks(lips_2: Tensor, shift_F2hw: Tensor, side: int) -> Tensor:
    """1 on the lips, however far they open, and 0 beside the jaw [F, 1, side, side], wherever the head takes them."""
    column, row = (int(place * shift_F2hw.shape[3] / side) for place in lips_2.tolist())
    x, y = (lips_2 + shift_F2hw[:, :, row, column])[:, :, None, None].split(1, dim=1)
    pixels = (torch.arange(side) + 0.5).to(lips_2)
    away = torch.hypot(pixels - x, pixels[:, None] - y) / (_LIPS_REACH * side)
    return _smooth((1 - away) / (1 - _LIPS_WHOLE))


def smooth_continuation(unknown_hw: Tensor) -> Tensor:
    """The matrix [h*w, h*w] that leaves a field as it is where it is known and continues it where it is not, so that each unknown pixel
    is the mean of its four neighbours (Laplace's equation; what is unknown must not touch the edge)."""
    height, width = unknown_hw.shape
    equations = torch.eye(height * width)
    for cell in unknown_hw.flatten().nonzero().flatten().tolist():
        for neighbour in (cell - width, cell - 1, cell + 1, cell + width):
            equations[cell, neighbour] = -0.25
    return torch.linalg.solve(equations, torch.diag(1.0 - unknown_hw.flatten()))


def _smooth(share: Tensor) -> Tensor:
    """0..1 with no slope at either end."""
    x = share.clamp(0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)
