"""What a session is told beyond its sound: tasks as what is known of each new latent frame, and how the rest goes on from it.

Every task runs through the same window, sampler and decoder, and between the last two its known part is put in. Talk knows nothing of
a new frame. In lip-sync all is known but the mouth; of first and last picture, where the way begins and ends. The network was trained
on frames that are known whole or not at all, so it is not asked to continue a part: what is known of a frame tells how wrong its
answer is there, and that error is carried on smoothly, in space or in time, to where the answer stands alone.
Legend: F video frames of a chunk, c channels a frame, C latent channels, h w latent pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from model.controls import NUM_CONTROLS, neutral_controls
from model.vae import Reference, ReferenceVAE

# A new latent frame [1, C, h, w] as predicted, to the one that is shown.
Finish = Callable[[Tensor], Tensor]

FADE_FRAMES = 20  # within which what is added to a first or last picture comes and goes
# Latent pixels of the lower face, from under the nose to under an open jaw: what lip-sync makes anew.
MOUTH_CELLS = (slice(8, 13), slice(5, 11))
# Two turns of the head add up, in latents, to one that training never showed: the sway is halved where another movement carries it.
_RIDING = np.array([0.5] * 5 + [1.0] * 5, dtype=np.float32)
MAX_CONTROL = 1.5  # about the widest motion training showed
_PROBE, _RIDGE = 0.5, 0.1


class Task(Protocol):
    def told(self, frame: int, controls: np.ndarray) -> tuple[np.ndarray, Finish]:
        """For the chunk that starts at video frame `frame` and would move by `controls` [F, NUM_CONTROLS]: how it moves, and what makes of
        the prediction the frame that is shown."""
        ...


class Talk:
    """Sound and controller alone: talking, image to video, text to video."""

    def told(self, frame: int, controls: np.ndarray) -> tuple[np.ndarray, Finish]:
        return controls, lambda predicted: predicted


class Between:
    """Starts at one picture and ends at another of the same person.

    Latents say where pixels moved, so the way between two of them is a movement. What the network adds to a face at rest (lips, lids,
    half of the sway) rides on it, and fades away where a picture is to be met exactly.
    """

    def __init__(self, vae: ReferenceVAE, ends_2chw: Tensor, resting_chw: Tensor, num_frames: int) -> None:
        """ends: both pictures as latents relative to the first; resting: what the network answers to silence and neutral controls."""
        self._vae, self._ends, self._resting, self._last = vae, ends_2chw, resting_chw, num_frames - 1

    def told(self, frame: int, controls: np.ndarray) -> tuple[np.ndarray, Finish]:
        at = torch.arange(frame, frame + len(controls)).to(self._ends)[:, None, None, None]
        way = _smooth(at / max(self._last, 1))
        fade = min(FADE_FRAMES, max(self._last / 2, 1))
        free = 1 - _smooth(1 - at / fade) - _smooth(1 - (self._last - at) / fade)

        def finish(predicted: Tensor) -> Tensor:
            added = self._vae.unstack(predicted.float()) - self._resting
            return self._vae.stack(torch.lerp(self._ends[:1], self._ends[1:], way) + free * added)

        return controls * _RIDING, finish


class LipSync:
    """The pictures of a clip, relative to one of them with closed lips; all is known but the mouth."""

    def __init__(self, vae: ReferenceVAE, reference: Reference, fit: MotionFit, pictures: Callable[[int], Tensor]) -> None:
        """pictures: for a chunk's first frame, [F, 3, H, W] in [-1, 1]."""
        self._vae, self._reference, self._fit, self._pictures = vae, reference, fit, pictures
        self._carry = smooth_continuation(mouth_mask())

    def told(self, frame: int, controls: np.ndarray) -> tuple[np.ndarray, Finish]:
        latent = self._vae.encode(self._pictures(frame), self._reference)

        def finish(predicted: Tensor) -> Tensor:
            wrong = (latent - predicted.float()).flatten(2)
            return predicted.float() + (wrong @ self._carry.to(wrong).T).unflatten(2, latent.shape[2:])

        return np.broadcast_to(self._fit(latent[0]), controls.shape), finish


class MotionFit:
    """The controls under which the network, in silence, comes closest to a latent frame: least squares on its answers around neutral."""

    def __init__(self, answer: Callable[[Tensor], Tensor], counted_hw: Tensor, mean_channels: int) -> None:
        """answer: controls [N, NUM_CONTROLS], held for a latent frame, to latents [N, C, h, w]; counted: 1 where the fit looks, else 0;
        mean_channels: the first channels of a latent frame, which hold its mean over time. The others know nothing of a pose."""
        neutral = torch.from_numpy(neutral_controls())
        aside = _PROBE * torch.eye(NUM_CONTROLS)
        answers = answer(torch.cat((neutral[None], neutral + aside, neutral - aside)))[:, :mean_channels].float()
        self._at_neutral, self._counted = answers[0], counted_hw.to(answers)
        slopes = ((answers[1 : NUM_CONTROLS + 1] - answers[NUM_CONTROLS + 1 :]) / (2 * _PROBE) * self._counted).flatten(1)
        normal = slopes @ slopes.T
        # Pulled towards neutral: what hardly shows in a latent must not be exaggerated to explain its noise.
        normal += _RIDGE * normal.diagonal().mean() * torch.eye(NUM_CONTROLS).to(normal)
        self._solution = torch.linalg.solve(normal, slopes)

    def __call__(self, latent_Chw: Tensor) -> np.ndarray:
        """float32 [NUM_CONTROLS]."""
        away = ((latent_Chw[: len(self._at_neutral)].float() - self._at_neutral) * self._counted).flatten()
        moved = (self._solution @ away).clamp(-MAX_CONTROL, MAX_CONTROL)
        return neutral_controls() + moved.cpu().numpy()


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
