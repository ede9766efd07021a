"""The rolling window `[anchor | context | new]` over the published weights: every chunk computes the whole window anew.

The published transformer attends in both directions and knows one noise level a window, so nothing of a pass can be kept.
What is known is told twice, as in training: clean in the masked video with mask 1, and in the noisy latent on the straight path
from its noise to itself, at the window's level. Samplers work place by place, so what they make of the known part is not used.
State is immutable. Legend: B batch, C latent channels, T latent frames of the window, K known ones, h w latent pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from model.echomimic.denoise import Conditions, Predict, denoise
from model.echomimic.samplers import Sampler


@dataclass(frozen=True, slots=True)
class RecomputedState:
    """told: conditions of the session's own window, a still picture that becomes a video; known: anchor and context [1, C, K, h, w]."""

    told: Conditions
    known: Tensor
    seed: int
    index: int


class RecomputedWindow:
    """Sessions run one after the other: a window fills a GPU, so a batch of them would take as long."""

    def __init__(self, predict: Predict, make_sampler: Callable[[], Sampler]) -> None:
        self._predict = predict
        self._make_sampler = make_sampler

    def open(self, told: Conditions, known: Tensor, seed: int) -> RecomputedState:
        """`told.y` spans the window, its first frame known; `known` holds latents of the picture standing still."""
        return RecomputedState(told, known, seed, 0)

    @torch.inference_mode()
    def advance(self, states: Sequence[RecomputedState], features: Sequence[Tensor]) -> tuple[list[Tensor], list[RecomputedState]]:
        """The new latents of each session [1, C, T - K, h, w] and the states after them; features are those of its window."""
        latents = [self._new_latents(state, audio) for state, audio in zip(states, features, strict=True)]
        after = [replace(state, known=_rolled(state.known, new), index=state.index + 1) for state, new in zip(states, latents, strict=True)]
        return latents, after

    def _new_latents(self, state: RecomputedState, audio: Tensor) -> Tensor:
        known, y = state.known, state.told.y
        count = known.shape[2]
        shape = (1, known.shape[1], *y.shape[2:])
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(state.seed * 1_000_003 + state.index)).to(known)
        sampler = self._make_sampler()

        def predict(x: Tensor, timestep: Tensor, step: int, conditions: Conditions) -> Tensor:
            sigma = float(sampler.sigmas[step])
            on_path = (1 - sigma) * known + sigma * noise[:, :, :count]
            return self._predict(torch.cat((on_path, x[:, :, count:]), dim=2), timestep, step, conditions)

        told = replace(state.told, y=_with_known(y, known), audio=audio.to(y))
        return denoise(predict, sampler, noise, told)[:, :, count:]


def _with_known(y_BCThw: Tensor, known_BCKhw: Tensor) -> Tensor:
    """The masked video with its first K frames known."""
    _, channels, count = known_BCKhw.shape[:3]
    mask = torch.ones_like(y_BCThw[:, :-channels, :count])
    return torch.cat((torch.cat((mask, known_BCKhw), dim=1), y_BCThw[:, :, count:]), dim=2)


def _rolled(known: Tensor, new: Tensor) -> Tensor:
    """The anchor, then the newest frames."""
    count = known.shape[2]
    moved = torch.cat((known[:, :, 1:], new), dim=2)
    return torch.cat((known[:, :, :1], moved[:, :, moved.shape[2] - (count - 1) :]), dim=2)
