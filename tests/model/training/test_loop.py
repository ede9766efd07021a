"""What training leaves behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.training.loop import Training, cosine_rate, save_part


def test_a_card_goes_on_from_the_earlier_one(tmp_path: Path) -> None:
    """What is known of a part's making is kept when it is trained further; of the same step the last is told."""
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    layer = torch.nn.Linear(2, 3)
    save_part(first, layer, {"vae": {"minutes": 5.0}, "eyes": {"minutes": 1.0}}, earlier=tmp_path / "none.safetensors")
    save_part(second, layer, {"vae": {"minutes": 7.0}}, earlier=first)
    assert json.loads(second.with_suffix(".json").read_text()) == {"vae": {"minutes": 7.0}, "eyes": {"minutes": 1.0}}
    assert torch.equal(load_file(second)["weight"], layer.weight)


def descended(training: Training[torch.nn.Linear], steps: int) -> None:
    for _ in range(steps):
        assert training.goes_on()
        training.step(training.module(torch.ones(1, 2)).square().mean())


def linear_training(minutes: float = 60.0) -> Training[torch.nn.Linear]:
    torch.manual_seed(0)
    layer = torch.nn.Linear(2, 1)
    return Training("test", layer, torch.optim.Adam(layer.parameters(), lr=0.1), minutes, decay=0.5, report_every=4)


def test_training_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """Weights, averages, steps and spent minutes; where there is no checkpoint it starts."""
    first, second = linear_training(), linear_training()
    descended(first, 5)
    first.save(tmp_path / "state.pt")
    second.resume(tmp_path / "none.pt")
    assert second.steps == 0
    second.resume(tmp_path / "state.pt")
    assert second.steps == 5 and second.minutes >= first.minutes - 1e-3
    assert torch.equal(second.module.weight, first.module.weight) and torch.equal(second.average.weight, first.average.weight)
    assert not torch.equal(first.average.weight, first.module.weight)
    for training in (first, second):
        training.step(training.module(torch.ones(1, 2)).square().mean())
    assert torch.equal(second.module.weight, first.module.weight), "the optimiser goes on, too"


def test_training_reports_now_and_then_and_ends_with_its_minutes() -> None:
    training = linear_training()
    assert training.goes_on()
    reported = [training.step(training.module(torch.ones(1, 2)).square().mean()) for _ in range(8)]
    assert reported == [False, False, False, True] * 2
    assert 0.0 < training.progress < 0.01
    ended = linear_training(minutes=1e-9)
    assert not ended.goes_on() and ended.progress == 1.0


def test_the_rate_rises_and_falls() -> None:
    rates = [cosine_rate(progress, 1.0) for progress in (0.0, 0.015, 0.03, 0.5, 1.0)]
    assert rates == [pytest.approx(r, abs=0.02) for r in (0.001, 0.5, 1.0, 0.53, 0.02)]
