"""What training leaves behind."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from model.training.loop import save_part


def test_a_card_goes_on_from_the_earlier_one(tmp_path: Path) -> None:
    """What is known of a part's making is kept when it is trained further; of the same step the last is told."""
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    layer = torch.nn.Linear(2, 3)
    save_part(first, layer, {"vae": {"minutes": 5.0}, "eyes": {"minutes": 1.0}}, earlier=tmp_path / "none.safetensors")
    save_part(second, layer, {"vae": {"minutes": 7.0}}, earlier=first)
    assert json.loads(second.with_suffix(".json").read_text()) == {"vae": {"minutes": 7.0}, "eyes": {"minutes": 1.0}}
    assert torch.equal(load_file(second)["weight"], layer.weight)
