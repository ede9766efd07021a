"""What the golden files do not reach: wrong arguments, limits, and pictures without colour."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.echomimic.colour import match_colour
from model.echomimic.framing import FaceBox, face_mask, output_size, whole_frames
from model.echomimic.guidance import phda_gains
from model.echomimic.samplers import make_sampler


@pytest.mark.parametrize("kind", ["flow", "unipc", "dpmpp"])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 7])
def test_a_perfect_flow_ends_at_the_clean_latent(kind: str, num_steps: int) -> None:
    """With the true flow at every step the samplers arrive, whatever the number of steps."""
    clean, noise = torch.randn(2, 1, 4, 3)
    sampler = make_sampler(kind, num_steps, constructor_shift=1.0 if kind == "unipc" else 5.0, call_shift=5.0)
    x = sampler.sigmas[0] * noise + (1 - sampler.sigmas[0]) * clean
    for i in range(num_steps):
        x = sampler.step(i, x, (x - clean) / sampler.sigmas[i])
    torch.testing.assert_close(x, clean, atol=1e-5, rtol=1e-5)


def test_wrong_sampler_arguments_are_named() -> None:
    """The message holds the value and what is allowed."""
    with pytest.raises(ValueError, match="flow, unipc, dpmpp, got 'heun'"):
        make_sampler("heun", 4, constructor_shift=1, call_shift=5)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        make_sampler("flow", 0, constructor_shift=1, call_shift=5)


def test_sizes_never_grow_and_are_whole_tokens() -> None:
    """A picture inside the area is only floored; one below a token is refused."""
    assert output_size(500, 333, 768 * 768) == (496, 320)
    assert whole_frames(113) == 113 and whole_frames(112) == 109
    with pytest.raises(ValueError, match="narrower than 16"):
        output_size(9000, 20, 256 * 256)


def test_a_tiny_face_leaves_an_empty_mask() -> None:
    """As published: its box is floored to nothing."""
    assert face_mask(FaceBox(10, 14, 10, 14), (512, 512), (512, 512)).sum() == 0


def test_a_grey_frame_moves_to_the_first_frames_colour() -> None:
    """A channel without spread is moved, not divided by zero."""
    first = np.full((4, 4, 3), 120, np.uint8)
    out = match_colour(np.full((4, 4, 3), 60, np.uint8), first)
    assert np.abs(out.astype(int) - first).max() <= 1


def test_phda_gains_rise_with_noise_and_end_at_one() -> None:
    """Text is always heard in full; image and sound from the middle of the range on."""
    assert phda_gains(0.0) == (1.0, 0.5, 0.5) and phda_gains(1000.0) == (1.0, 1.0, 1.0)
    assert phda_gains(500.0).image == 1.0 and phda_gains(500.0).audio < 1.0
