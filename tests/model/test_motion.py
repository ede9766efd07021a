"""The portrait's motion: no field changes nothing, a uniform field is a shift, and gradients reach the field."""

from __future__ import annotations

import torch

from model.config import VAEConfig
from model.motion import COLOURS, FIELD_CELLS, PAINT_CELLS, PIXELS_PER_UNIT, change_by_motion, clean_latent, motion_channels
from model.vae import PatchVAE

CONFIG = VAEConfig(patch=16, time_stride=4, frame_channels=6, width=8)


def vae() -> PatchVAE:
    torch.manual_seed(0)
    return PatchVAE(CONFIG).eval()


def test_no_motion_and_no_correction_is_the_portrait() -> None:
    network = vae()
    picture = torch.rand(1, 3, 64, 64) * 2 - 1
    base = network.encode_still(picture[0])[None, None]
    output = torch.zeros(1, 1, CONFIG.latent_channels + motion_channels(4), 4, 4)
    torch.testing.assert_close(clean_latent(output, base, picture, network), base, rtol=0, atol=1e-5)


def test_a_uniform_field_is_a_shift_of_every_frame() -> None:
    """x0 of a shifted field is the latent of the shifted picture, as far as the linear part of the encoder goes."""
    network = vae()
    wide = torch.rand(1, 3, 64, 64 + 8) * 2 - 1
    picture, shifted = wide[..., :64], wide[..., 8:]
    field = torch.zeros(1, 1, 4, motion_channels(1), 4, 4)
    field[:, :, :, : FIELD_CELLS**2] = 8 / PIXELS_PER_UNIT  # every place comes from eight pixels to its right
    change = change_by_motion(field.flatten(2, 3), picture, network)
    expected = network.analysis(shifted) - network.analysis(picture)
    expected = network.stack_change(expected.repeat(4, 1, 1, 1))[None]
    torch.testing.assert_close(change[..., :3], expected[..., :3], rtol=1e-4, atol=1e-4)  # the last column has left the picture


def test_full_opacity_of_a_layer_is_its_colour() -> None:
    """Painted all over with teeth, the portrait is gone."""
    network = vae()
    picture = torch.rand(1, 3, 64, 64) * 2 - 1
    output = torch.zeros(1, 1, 4, motion_channels(1), 4, 4)
    first = 2 * FIELD_CELLS**2 + PAINT_CELLS**2
    output[:, :, :, first : first + PAINT_CELLS**2] = 1.0
    change = change_by_motion(output.flatten(2, 3), picture, network)
    flat = torch.tensor(COLOURS[1])[None, :, None, None].expand(1, 3, 64, 64)
    expected = network.stack_change((network.analysis(flat) - network.analysis(picture)).repeat(4, 1, 1, 1))[None]
    torch.testing.assert_close(change, expected, rtol=1e-4, atol=1e-4)


def test_gradients_reach_the_field() -> None:
    network = vae()
    field = torch.zeros(2, 3, motion_channels(4), 4, 4, requires_grad=True)
    change_by_motion(field, torch.rand(2, 3, 64, 64), network).square().sum().backward()
    assert field.grad is not None and field.grad.shape == field.shape
    target = torch.randn(2, 3, CONFIG.latent_channels, 4, 4)
    field.grad = None
    (change_by_motion(field, torch.rand(2, 3, 64, 64), network) - target).square().sum().backward()
    assert field.grad is not None and field.grad.abs().max() > 0
