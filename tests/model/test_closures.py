"""A bilabial that is heard closes the lips, in its own frames, and nothing else."""

from __future__ import annotations

import pytest
import torch

from model.audio import BILABIALS, PHONES, AudioEncoder
from model.closures import close_lips, heard_closures
from model.conditions import STEPS_BEFORE, STEPS_PER_LATENT
from model.tasks import mouth_mask

FRAMES = 4


@pytest.fixture
def listener() -> AudioEncoder:
    """Hears in every step the phone whose feature is set."""
    encoder = AudioEncoder()
    with torch.no_grad():
        encoder.phones.weight.copy_(20.0 * torch.eye(len(PHONES), encoder.dim))
        encoder.phones.bias.zero_()
    return encoder.requires_grad_(False)


def tokens(*said: tuple[int, str]) -> torch.Tensor:
    """A latent frame's, with phones in steps counted from its first; the others are silence."""
    features = torch.zeros(1, STEPS_BEFORE + STEPS_PER_LATENT, AudioEncoder.dim)
    heard = dict(said)
    for step in range(-STEPS_BEFORE, STEPS_PER_LATENT):
        features[0, STEPS_BEFORE + step, PHONES.index(heard.get(step, "SIL"))] = 1.0
    return features


@pytest.mark.parametrize("phone", BILABIALS)
def test_one_step_of_a_bilabial_closes_the_frame_it_is_heard_in(listener: AudioEncoder, phone: str) -> None:
    assert heard_closures(listener, tokens((5, phone)), FRAMES)[0].round().tolist() == [0, 0, 1, 0]


def test_other_phones_and_the_frame_before_close_nothing(listener: AudioEncoder) -> None:
    assert heard_closures(listener, tokens((-1, "B"), (2, "AA"), (6, "V")), FRAMES).max() < 0.01


def test_a_likely_bilabial_closes_lips_all_the_way(listener: AudioEncoder) -> None:
    """From two thirds on: nearly closed lips are seen as open ones."""
    heard, shares = tokens((5, "B")), []
    for share in (0.3, 0.5, 0.7):
        features = heard.clone()
        # Two phones whose features make the one that share likely, the rest of it silence.
        logit = torch.log(torch.tensor(share / (1.0 - share))) / 20.0
        features[0, STEPS_BEFORE + 5, PHONES.index("SIL")] = 1.0 - logit
        shares.append(float(heard_closures(listener, features, FRAMES)[0, 2]))
    assert shares == pytest.approx([0.45, 0.75, 1.0], abs=0.02)


def test_only_the_mouth_goes_to_rest_and_only_as_far_as_is_likely() -> None:
    frames, resting = torch.randn(1, FRAMES, 8, 16, 16), torch.randn(1, 8, 16, 16)
    mouth = mouth_mask()
    closed = close_lips(frames, resting, torch.tensor([[0.0, 1.0, 0.5, 0.0]]), mouth)
    inside = mouth == 1
    assert torch.equal(closed[..., ~inside], frames[..., ~inside])
    assert torch.equal(closed[0, [0, 3]], frames[0, [0, 3]])
    assert torch.allclose(closed[0, 1][..., inside], resting[0][..., inside])
    assert torch.allclose(closed[0, 2][..., inside], (resting[0] + frames[0, 2])[..., inside] / 2, atol=1e-6)
