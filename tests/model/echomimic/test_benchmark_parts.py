"""What the benchmark of the published model counts and measures is the model: operations as published, 8-bit layers near the exact ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.benchmarks.echomimic import Budget
from tests.benchmarks.echomimic_parts import FULL, SMALL, Fp8Linear, decoder_work, dit_inputs, dit_work, make_dit

CPU = torch.device("cpu")


@pytest.mark.slow
def test_operations_are_those_of_the_published_widths() -> None:
    """512x512 and 13 frames: 14.8 TFLOP a pass, less the query that has no effect; 8.88 for a latent frame of the decoder."""
    unused = 2 * 4096 * 1536**2 * 30
    assert dit_work(FULL, (512, 512), 4).total == pytest.approx(14.8e12 - unused, rel=0.01)
    assert decoder_work(FULL, (512, 512), "full") == pytest.approx(8.88e12, rel=0.005)


def test_eight_bits_stay_near_the_exact_layer() -> None:
    """A row's error is a few per cent of its size; in the transformer every layer of the blocks is replaced."""
    torch.manual_seed(0)
    linear, x = nn.Linear(64, 32).requires_grad_(False), torch.randn(2, 5, 64)
    error = (Fp8Linear(linear)(x) - linear(x)).norm() / linear(x).norm()
    assert 1e-4 < error < 0.06
    dit = make_dit(SMALL, CPU, "fp8")
    assert not [name for name, part in dit.blocks.named_modules() if isinstance(part, nn.Linear)]
    with torch.inference_mode():
        assert dit_inputs(SMALL, (32, 32), 4, 2, CPU)(dit).isfinite().all()


def test_cells_that_take_too_long_are_listed() -> None:
    """Nothing is left out silently."""
    budget = Budget(total_s=100, cell_s=5)
    assert budget.allows("short", 4) and not budget.allows("long", 6)
    assert not Budget(total_s=-1, cell_s=5).allows("late")
    assert budget.left_out == ["long"]
