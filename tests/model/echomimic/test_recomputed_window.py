"""The rolling window that is computed anew for every chunk: what the transformer is told, and what is kept."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model.echomimic.denoise import Conditions
from model.echomimic.recomputed_window import RecomputedState, RecomputedWindow
from model.echomimic.samplers import Sampler, make_sampler

KNOWN = 3


def told(num_latents: int) -> Conditions:
    """A still picture that becomes a video."""
    torch.manual_seed(0)
    y = torch.randn(1, 20, num_latents, 2, 2)
    y[:, :4] = 0
    y[:, :4, :1] = 1
    nothing = torch.empty(0)
    return Conditions(y=y, prompt=nothing, negative=nothing, image=nothing, audio=nothing)


class Recorder:
    """Predicts the flow that leads to `target`, and remembers what it was told."""

    def __init__(self, target: Tensor, sampler: Sampler) -> None:
        self.target, self.sigmas = target, sampler.sigmas
        self.calls: list[tuple[Tensor, int, Conditions]] = []

    def __call__(self, x: Tensor, timestep: Tensor, step: int, conditions: Conditions) -> Tensor:
        self.calls.append((x, step, conditions))
        return (x - self.target) / self.sigmas[step]


def sampler() -> Sampler:
    return make_sampler("unipc", 3, constructor_shift=1.0, call_shift=5.0)


def rolled(num_new: int, count: int) -> tuple[Recorder, list[Tensor], list[RecomputedState]]:
    """Chunks of a session, each leading to the same target."""
    target = torch.arange(float(KNOWN + num_new)).view(1, 1, -1, 1, 1).expand(1, 16, -1, 2, 2)
    predict = Recorder(target, sampler())
    window = RecomputedWindow(predict, sampler)
    states, latents = [window.open(told(KNOWN + num_new), -torch.ones(1, 16, KNOWN, 2, 2), 5)], []
    for index in range(count):
        (new,), (state,) = window.advance(states[-1:], [torch.full((1,), float(index))])
        latents.append(new)
        states.append(state)
    return predict, latents, states


def test_what_is_known_is_told_clean_and_on_its_path() -> None:
    """The masked video holds it with mask 1; in the noisy latent it is at the window's level, with one noise for all steps."""
    predict, latents, states = rolled(2, 1)
    torch.testing.assert_close(latents[0][0, 0, :, 0, 0], torch.tensor([3.0, 4.0]), atol=1e-4, rtol=1e-4)
    known, noise = states[0].known, predict.calls[0][0]
    noise = (noise[:, :, :KNOWN] - (1 - predict.sigmas[0]) * known) / predict.sigmas[0]
    for x, step, conditions in predict.calls:
        sigma = predict.sigmas[step]
        torch.testing.assert_close(x[:, :, :KNOWN], (1 - sigma) * known + sigma * noise)
        assert torch.equal(conditions.y[:, :4, :KNOWN], torch.ones(1, 4, KNOWN, 2, 2)) and not conditions.y[:, :4, KNOWN:].any()
        assert torch.equal(conditions.y[:, 4:, :KNOWN], known)
        assert torch.equal(conditions.y[:, 4:, KNOWN:], states[0].told.y[:, 4:, KNOWN:])
        assert conditions.audio.item() == 0.0
    assert len(predict.calls) == 3


@pytest.mark.parametrize("num_new", [1, 2, 3])
def test_the_anchor_stays_and_the_context_is_what_came_last(num_new: int) -> None:
    """Whether a chunk is shorter than the context or longer."""
    _, latents, states = rolled(num_new, 3)
    made = torch.cat((states[0].known[:, :, 1:], *latents), dim=2)
    assert torch.equal(states[-1].known[:, :, :1], states[0].known[:, :, :1])
    assert torch.equal(states[-1].known[:, :, 1:], made[:, :, -(KNOWN - 1) :])


def test_going_on_from_an_older_state_repeats_exactly() -> None:
    """States are immutable and noise depends on seed and index alone; another chunk has another noise."""
    predict, _, states = rolled(2, 2)
    window = RecomputedWindow(predict, sampler)
    first = [predict.calls[i][0] for i in (0, 3)]
    window.advance(states[1:2], [torch.ones(1)])
    assert torch.equal(predict.calls[6][0], first[1]) and not torch.equal(first[0][:, :, KNOWN:], first[1][:, :, KNOWN:])
