"""Person and backdrop: together they are the picture, apart they move apart."""

from __future__ import annotations

import torch

from model.layers import Layers, behind, beyond, endless, matte_of

SIZE = 64


def portrait() -> tuple[torch.Tensor, torch.Tensor]:
    """A bright square before a backdrop that brightens to the right; [1, 1, H, W] both."""
    matte = torch.zeros(1, 1, SIZE, SIZE)
    matte[..., 20:, 20:44] = 1.0
    backdrop = torch.linspace(-0.5, 0.5, SIZE).expand(1, 1, SIZE, SIZE)
    return torch.lerp(backdrop, torch.ones(()), matte), matte


def test_at_rest_the_layers_are_the_picture() -> None:
    """Also where the matte is wrong."""
    picture, matte = portrait()
    for wrong in (matte, 1.0 - matte, torch.rand(matte.shape)):
        layers = Layers.of(picture, wrong, behind(picture, wrong), endless(picture, wrong))
        torch.testing.assert_close(layers.shown(layers.person, wrong, layers.endless, wrong), picture, rtol=0, atol=1e-6)


def test_what_is_uncovered_is_the_backdrop_continued() -> None:
    """A person who steps aside leaves neither a hole nor a trace, and takes nothing of the backdrop along."""
    picture, matte = portrait()
    layers = Layers.of(picture, matte, behind(picture, matte), endless(picture, matte))
    aside = layers.shown(layers.person.roll(6, 3), matte.roll(6, 3), layers.endless.roll(6, 3), matte.roll(6, 3))
    assert (aside[..., 20:, 26:50] - 1.0).abs().max() < 1e-5
    expected = torch.linspace(-0.5, 0.5, SIZE)[20:26]
    assert (aside[0, 0, 24:, 20:26] - expected).abs().max() < 0.12
    torch.testing.assert_close(aside[..., :15], picture[..., :15])


def test_an_outline_goes_its_own_way() -> None:
    """Where it goes ahead of the person there is more of them, where it stays behind the backdrop is seen; inside nothing changes."""
    picture, matte = portrait()
    layers = Layers.of(picture, matte, behind(picture, matte), endless(picture, matte))
    shown = layers.shown(layers.person, matte, layers.endless, matte.roll(4, 3))
    assert (shown[..., 20:, 24:44] - 1.0).abs().max() < 1e-5
    assert (shown[..., 20:, 44:48] - 1.0).abs().max() < 0.05, "a few pixels around the person may be either's"
    expected = torch.linspace(-0.5, 0.5, SIZE)
    assert (shown[0, 0, 24:, 20:24] - expected[20:24]).abs().max() < 0.12
    torch.testing.assert_close(shown[..., 49:], picture[..., 49:])


def test_a_picture_of_nothing_but_a_person_needs_no_backdrop() -> None:
    picture = torch.rand(2, 3, SIZE, SIZE)
    assert torch.isfinite(behind(picture, torch.ones(2, 1, SIZE, SIZE))).all()
    assert torch.equal(endless(picture, torch.ones(2, 1, SIZE, SIZE)), picture)
    assert torch.isfinite(endless(picture, torch.zeros(2, 1, SIZE, SIZE))).all()


def test_a_matte_is_all_or_nothing_where_it_is_nearly_so() -> None:
    matte = matte_of(torch.tensor([[[-6.0, 0.0, 6.0]]]))
    assert matte[0, 0, 0].tolist() == [0.0, 0.5, 1.0]


def test_motion_goes_on_beyond_the_outline() -> None:
    """Where the person will be there is nobody yet: what comes there moves as the nearest of the person does."""
    _, matte = portrait()
    fields = torch.zeros(1, 2, 2, SIZE // 2, SIZE // 2)
    fields[..., 11:, 11:21] = 3.0
    continued = beyond(fields, matte)
    assert (continued[..., 11:, 11:21] - 3.0).abs().max() < 1e-5
    assert (continued[..., 12:, 5:27] - 3.0).abs().max() < 0.3
    assert not beyond(fields, torch.zeros_like(matte)).any()
