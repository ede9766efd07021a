"""What a session is told beyond its sound: tasks as what is known of each new latent frame, and how the rest goes on from it.

Every task runs through the same window, sampler and decoder. Talk knows nothing of a new frame; in lip-sync all is known but the mouth, and
the mask tells the network so; of first and last picture, where the way begins and ends. Between sampler and decoder the known part is put
in: it tells how wrong the answer is there, and that error is carried on smoothly, in space or in time, to where the answer stands alone.
Moves are controls less the portrait's own. Legend: F video frames of a chunk, c channels a frame, h w latent pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.controls import NUM_CONTROLS
from model.layers import matte_of
from model.motion import NUM_HEAD_CONTROLS, portrait_motion
from model.vae import Reference, ReferenceVAE
from model.window import Known

# The latents of a chunk's video frames [F, c, h, w] as predicted, to those that are shown.
Finish = Callable[[Tensor], Tensor]


class Told(NamedTuple):
    """Of one chunk: its moves [F, NUM_CONTROLS], what is known of its latent frame, what makes of the prediction what is shown, and what
    is added to the frames it is drawn as, float I420 [F, H*3//2, W]."""

    moves: np.ndarray
    known: Known | None
    finish: Finish
    added: Tensor | None = None


FADE_FRAMES = 20  # within which what is added to a first or last picture comes and goes
# Within which the last picture's detail comes: sooner, outlines that are not there yet would be seen twice.
MEET_FRAMES = 10
# Latent pixels of the lower face, from under the nose to under an open jaw: what lip-sync makes anew.
MOUTH_CELLS = (slice(8, 13), slice(5, 11))
# Two turns of the head add up, in latents, to one that training never showed: the sway is halved where another movement carries it.
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


class Between:
    """Starts at one picture and ends at another of the same person.

    Latents say where pixels moved, so the way between two of them is a movement. What is told (half of the sway, lids) and what the
    network adds to a face at rest (lips) ride on it, and fade away where a picture is to be met exactly. What latents cannot say of the
    last picture (what the first did not show) comes at the very end.
    """

    def __init__(self, ends_2chw: Tensor, resting_chw: Tensor, missing: Tensor, num_frames: int) -> None:
        """ends: both pictures as latents relative to the first, unmoved; resting: what the network answers to silence and no moves;
        missing: the last picture less what its latents are drawn as, I420 [H*3//2, W]."""
        self._ends, self._resting, self._missing, self._last = ends_2chw, resting_chw, missing, num_frames - 1

    def told(self, frame: int, moves: np.ndarray) -> Told:
        at = torch.arange(frame, frame + len(moves)).to(self._ends)[:, None, None, None]
        way = _smooth(at / max(self._last, 1))
        fade = min(FADE_FRAMES, max(self._last / 2, 1))
        free = 1 - _smooth(1 - at / fade) - _smooth(1 - (self._last - at) / fade)

        def finish(predicted: Tensor) -> Tensor:
            return torch.lerp(self._ends[:1], self._ends[1:], way) + free * (predicted - self._resting)

        met = _smooth(1 - (self._last - at[:, 0]) / min(MEET_FRAMES, max(self._last / 2, 1)))
        return Told(moves * _RIDING * free.flatten(1).cpu().numpy(), None, finish, met * self._missing if met.any() else None)


class LipSync:
    """The pictures of a clip, relative to one of them with closed lips; all is known but the mouth."""

    def __init__(self, vae: ReferenceVAE, reference: Reference, pictures: Callable[[int], Tensor]) -> None:
        """pictures: for a chunk's first frame, [F, 3, H, W] in [-1, 1]."""
        self._vae, self._reference, self._pictures = vae, reference, pictures
        self._fit = PoseFit(reference.fields, matte_of(reference.person))
        self._canvas = vae.decoder.canvas(reference)
        self._outside = 1.0 - mouth_mask()
        self._carry = smooth_continuation(mouth_mask())

    def told(self, frame: int, moves: np.ndarray) -> Told:
        pictures = self._pictures(frame)
        still = torch.zeros(moves.shape).to(pictures)
        untold = self._vae.encoder(pictures, self._reference, self._reference.moved(still))
        seen = self._vae.decoder(untold, self._canvas, still)
        fitted = self._fit(seen.motion)
        true = self._vae.encoder(pictures, self._reference, self._reference.moved(fitted))

        def finish(predicted: Tensor) -> Tensor:
            wrong = (true - predicted).flatten(2)
            return predicted + (wrong @ self._carry.to(wrong).T).unflatten(2, true.shape[2:])

        return Told(fitted.cpu().numpy(), Known(self._vae.stack(true)[0], self._outside.to(true)), finish)


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
