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
from model.controls import NUM_CONTROLS
from model.i420_decoder import joined
from model.layers import matte_of
from model.motion import NUM_HEAD_CONTROLS, portrait_motion
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
# Latent pixels of the lower face, from under the nose to under an open jaw: what lip-sync makes anew.
MOUTH_CELLS = (slice(8, 13), slice(5, 11))
# As shares of the picture: how far below the upper teeth the middle of an open mouth is, and how far from there lip-sync draws lips; up to
# which share of that, all of them.
_BELOW_TEETH, _LIPS_REACH, _LIPS_WHOLE = 0.075, 0.125, 0.8
# Two turns of the head may add up to one that training never showed: the sway is halved where another movement carries it.
_RIDING = np.array([0.5] * 5 + [1.0] * 5, dtype=np.float32)
MAX_MOVE = 2.5  # about the widest motion training showed
_ROUNDS, _RIDGE = 4, 0.01
_COUNTED_SIDE = 32


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
    answers there to silence [2, c, h, w]; missing, the last picture less what its latents are drawn as, I420 [H*3//2, W]."""

    moves: Tensor
    latents: Tensor
    answers: Tensor
    missing: Tensor


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
        first, last = (self._vae.stack(end.expand(num_frames, -1, -1, -1))[0] for end in self._ends.latents)
        where = torch.zeros(num_frames, *last.shape[1:]).to(last)
        where[max(self._last - frame, 0) :] = 1.0
        return Known(masked_video(first, last, where, self._vae.latent_std), where)


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
        self._outside = 1.0 - mouth_mask()
        self._carry = smooth_continuation(mouth_mask())

    def told(self, frame: int, moves: np.ndarray) -> Told:
        pictures = self._pictures(frame)
        fitted = self._pose(pictures)
        true = self._vae.encoder(pictures, self._reference, self._reference.moved(fitted))

        def finish(predicted: Tensor) -> Tensor:
            wrong = (true - predicted).flatten(2)
            return predicted + (wrong @ self._carry.to(wrong).T).unflatten(2, true.shape[2:])

        where = self._outside.to(true).expand(len(true), -1, -1)
        known = masked_video(self._still, self._vae.stack(true)[0], where, self._vae.latent_std)
        lips = lips_masks(self._reference.teeth.float(), portrait_motion(self._reference.fields, fitted).shift)
        redrawn, shown = joined(lips, F.avg_pool2d(lips, 2).expand(-1, 2, -1, -1)), self._planes(pictures)
        return Told(fitted.cpu().numpy(), Known(known, where), finish, lambda drawn: torch.lerp(shown, drawn, redrawn))


class PoseReader:
    """The pose in which pictures show a portrait's person."""

    def __init__(self, vae: ReferenceVAE, reference: Reference) -> None:
        self._vae, self._reference, self._canvas = vae, reference, vae.decoder.canvas(reference)
        self._fit = PoseFit(reference.fields, matte_of(reference.person))

    def __call__(self, pictures_F3HW: Tensor) -> Tensor:
        """Moves [F, NUM_CONTROLS] that take the portrait's head there."""
        still = pictures_F3HW.new_zeros(len(pictures_F3HW), NUM_CONTROLS)
        untold = self._vae.encoder(pictures_F3HW, self._reference, self._reference.moved(still))
        return self._fit(self._vae.decoder(untold, self._canvas, still).motion)


class PoseFit:
    """The pose under which a portrait's pixels move as they are seen to: least squares, linear around the portrait's own, repeated."""

    def __init__(self, fields_1Kchw: Tensor, matte_11HW: Tensor) -> None:
        """Where the matte is 0 nothing tells how a person moves."""
        self._fields = fields_1Kchw
        cells = mouth_mask().repeat_interleave(_COUNTED_SIDE // 16, 0).repeat_interleave(_COUNTED_SIDE // 16, 1)
        self._counted = (1.0 - cells).to(fields_1Kchw) * F.adaptive_avg_pool2d(matte_11HW, _COUNTED_SIDE)[0, 0]
        aside = torch.zeros(NUM_HEAD_CONTROLS, NUM_CONTROLS).to(fields_1Kchw)
        aside[:, :NUM_HEAD_CONTROLS].fill_diagonal_(1.0)
        slopes = (self._told(aside) - self._told(-aside)) / 2.0
        normal = slopes @ slopes.T
        normal += _RIDGE * normal.diagonal().mean() * torch.eye(NUM_HEAD_CONTROLS).to(normal)
        self._solution = torch.linalg.solve(normal, slopes)

    def __call__(self, motion_F2hw: Tensor) -> Tensor:
        """Moves [F, NUM_CONTROLS], of which only the head's are not zero."""
        seen = self._cells(motion_F2hw)
        moves = torch.zeros(len(seen), NUM_CONTROLS).to(seen)
        for _ in range(_ROUNDS):
            further = (seen - self._told(moves)) @ self._solution.T
            moves[:, :NUM_HEAD_CONTROLS] = (moves[:, :NUM_HEAD_CONTROLS] + further).clamp(-MAX_MOVE, MAX_MOVE)
        return moves

    def _told(self, moves_FM: Tensor) -> Tensor:
        return self._cells(portrait_motion(self._fields, moves_FM).total())

    def _cells(self, motion_F2hw: Tensor) -> Tensor:
        """Means over cells, the mouth's left out [F, n]."""
        return (F.adaptive_avg_pool2d(motion_F2hw, _COUNTED_SIDE) * self._counted).flatten(1)


def mouth_mask(grid: int = 16) -> Tensor:
    """1 where lip-sync makes the picture anew [grid, grid]."""
    mask = torch.zeros(grid, grid)
    mask[MOUTH_CELLS] = 1.0
    return mask


def lips_masks(teeth_13HW: Tensor, shift_F2hw: Tensor) -> Tensor:
    """1 on the lips, however far they open, and 0 beside the jaw [F, 1, H, W], from where a portrait's upper teeth are behind its lips, and
    where the head takes its points."""
    shown = teeth_13HW.abs().sum(dim=1)[0]
    side = len(shown)
    place = (torch.arange(side) + 0.5).to(shown)
    middle = torch.stack([(shown.sum(dim=dim) * place).sum() / shown.sum().clamp(min=1e-6) for dim in (0, 1)])
    taken = shift_F2hw.flatten(2)[..., _cell(middle, side, shift_F2hw.shape[3])]
    x, y = ((middle + taken)[:, :, None, None]).split(1, dim=1)
    away = torch.hypot(place - x, place[:, None] - y - _BELOW_TEETH * side) / (_LIPS_REACH * side)
    return _smooth((1 - away) / (1 - _LIPS_WHOLE))


def _cell(place_2: Tensor, side: int, columns: int) -> int:
    """Which of a square field's values is of a place in a picture, x before y, counted row by row."""
    column, row = (int(v * columns / side) for v in place_2.tolist())
    return row * columns + column


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
