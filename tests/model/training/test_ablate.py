"""Sampling the teacher by phases: what is left out or weighed differs in the phase that is meant, and only while it is asked for."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from model.config import PRESENTER_DIT, PRESENTER_WINDOW, WindowConfig
from model.dit import DiT
from model.training.ablate import guided_in, phase_aware
from model.training.ablate_soup import variants
from model.training.train_teacher import Settings
from model.window import RollingWindow

TINY = dataclasses.replace(
    PRESENTER_DIT, latent_channels=8, image_dim=8, patch=2, dim=48, ffn_dim=64, num_heads=2, num_layers=2, freq_dim=16, text_dim=6,
    audio_dim=5, grid=4,
)  # fmt: skip
TWO_STEPS = dataclasses.replace(PRESENTER_WINDOW, sigmas=(1.0, 0.5))
GUIDED = dataclasses.replace(TWO_STEPS, guidance=2.0)


@pytest.fixture
def dit() -> DiT:
    torch.manual_seed(0)
    network = DiT(TINY).eval()
    torch.nn.init.normal_(network.head.head.weight, std=0.3)
    return network


def sampled(dit: DiT, config: WindowConfig) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    window = RollingWindow(dit, config, torch.zeros(TINY.audio_tokens, TINY.audio_dim))
    anchor = torch.randn(TINY.latent_channels, TINY.grid, TINY.grid, generator=generator)
    image = torch.randn(TINY.image_tokens, TINY.image_dim, generator=generator)
    state = window.open(anchor, anchor, image, torch.zeros(3, TINY.text_dim), seed=0)
    heard = torch.randn(1, TINY.audio_tokens, TINY.audio_dim, generator=generator)
    return window.advance([state], heard, torch.randn(1, TINY.control_dim, generator=generator))[0]


def test_phases_weigh_sound_less_at_low_noise(dit: DiT) -> None:
    before = sampled(dit, TWO_STEPS)
    with phase_aware(dit):
        weighed = sampled(dit, TWO_STEPS)
    assert not torch.allclose(weighed, before, atol=1e-4)
    assert torch.equal(sampled(dit, TWO_STEPS), before)


def test_guidance_is_left_out_of_the_other_phase(dit: DiT) -> None:
    """With the early phase alone guided, one step is as guided and the second as unguided; with the late one, the other way round."""
    one = dataclasses.replace(GUIDED, sigmas=(1.0,))
    plain, guided = sampled(dit, dataclasses.replace(one, guidance=1.0)), sampled(dit, one)
    with guided_in(dit, early=True):
        torch.testing.assert_close(sampled(dit, one), guided)
        early = sampled(dit, GUIDED)
    with guided_in(dit, early=False):
        torch.testing.assert_close(sampled(dit, one), plain)
        late = sampled(dit, GUIDED)
    assert not torch.allclose(plain, guided, atol=1e-4)
    every = sampled(dit, GUIDED)
    assert all(not torch.allclose(each, every, atol=1e-4) for each in (early, late))


def test_teachers_differ_in_order_or_averages_alone() -> None:
    """Beside the base each changes one thing; what easy to hard begins with, hard to easy ends with."""
    base = Settings(minutes=1.0, batch=2, rate=1e-3)
    for name, settings in variants(base).items():
        changed = [field.name for field in dataclasses.fields(Settings) if getattr(settings, field.name) != getattr(base, field.name)]
        assert len(changed) == (name != "hard to easy"), name
    easy = variants(base)["easy to hard"].order
    assert easy(0.0).keys() == base.order(1.0).keys() - base.order(0.5).keys()
    assert easy(1.0) == pytest.approx(base.order(1.0))
