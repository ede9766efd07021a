"""Distillation's parts: what the guided teacher answers, what is drawn, and what several students become."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from model.audio import AudioEncoder
from model.config import DiTConfig
from model.controls import NUM_CONTROLS
from model.training.bundle import averaged
from model.training.sequences import Batch, EncodedClip, far_turned
from model.training.train_student import Guided, quiet_tokens
from model.training.train_teacher import build


def spoken_batch(config: DiTConfig) -> Batch:
    """One sequence of three latent frames, drawn at random."""
    latent = (config.latent_channels, config.grid, config.grid)
    return Batch(
        torch.randn(1, 3, *latent), torch.randn(1, *latent), torch.randn(1, config.image_tokens, config.image_dim),
        torch.randn(1, 3, config.control_dim), torch.randn(1, 3, config.audio_tokens, config.audio_dim),
        torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, 3, 4, config.grid, config.grid), torch.ones(1), torch.zeros(1, 12),
    )  # fmt: skip


def test_the_guided_teacher_leads_away_from_silence() -> None:
    """With guidance g the answer is what it is in silence plus g times what the sound changes; of silence nothing changes."""
    torch.manual_seed(0)
    teacher = build().eval().requires_grad_(False)
    torch.nn.init.normal_(teacher.dit.head.head.weight, std=0.1)
    torch.nn.init.normal_(teacher.dit.mean_latent.maps, std=0.02)
    config = teacher.dit.config
    quiet = quiet_tokens(AudioEncoder().eval().requires_grad_(False))
    assert quiet.shape == (config.audio_tokens, config.audio_dim)
    batch = spoken_batch(config)
    rest = (torch.randn_like(batch.latents), torch.ones(1, 3), batch.latents[:, :-1], torch.full((1, 1), 0.02))
    spoken, unheard = teacher(batch, *rest), teacher(batch, *rest, quiet.expand_as(batch.audio))
    torch.testing.assert_close(Guided(teacher, quiet, 1.8)(batch, *rest), unheard + 1.8 * (spoken - unheard), rtol=1e-4, atol=1e-4)
    assert (spoken - unheard).abs().max() > 1e-3
    silent = dataclasses.replace(batch, audio=quiet.expand_as(batch.audio))
    torch.testing.assert_close(Guided(teacher, quiet, 1.8)(silent, *rest), teacher(silent, *rest), rtol=1e-4, atol=1e-4)


def test_bfloat16_where_it_is_faster_trains_alike() -> None:
    """What a fast machine's autocast answers, with gradients and without, is what single precision does to two hundredths."""
    torch.manual_seed(0)
    model = build()
    torch.nn.init.normal_(model.dit.head.head.weight, std=0.1)
    batch = spoken_batch(model.dit.config)
    rest = (torch.randn_like(batch.latents), torch.ones(1, 3), batch.latents[:, :-1], torch.full((1, 1), 0.02))
    exact = model(batch, *rest).detach()
    with torch.autocast("cpu", torch.bfloat16):
        out = model(batch, *rest)
        with torch.no_grad():
            judged = model(batch, *rest)
    out.float().square().mean().backward()
    for answer in (out.detach(), judged):
        assert (answer - exact).square().mean() < 0.02**2 * exact.square().mean()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.dit.blocks.parameters())


def test_students_of_one_line_are_averaged() -> None:
    one, other = ({"w": torch.full((2,), value), "steps": torch.tensor(3)} for value in (1.0, 2.0))
    mean = averaged([one, other])
    assert torch.equal(mean["w"], torch.full((2,), 1.5)) and mean["steps"].dtype == torch.int64 and int(mean["steps"]) == 3
    assert torch.equal(averaged([one])["w"], one["w"])


def test_far_poses_are_drawn_more_often() -> None:
    moves = torch.zeros(1, 8, NUM_CONTROLS)
    near, far = moves.clone(), moves.clone()
    near[..., 0], far[..., 1] = 0.5, -1.5
    empty = torch.zeros(1)
    clips = [EncodedClip(empty, empty, empty, turned, empty, empty) for turned in (near, far)]
    assert far_turned(clips).tolist() == pytest.approx([0.25, 0.75])
