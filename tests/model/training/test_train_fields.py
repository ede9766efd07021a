"""How portraits move is learnt from pictures and from known motion: a few steps on one scene must get nearer to both."""

from __future__ import annotations

import torch

from model.config import VAEConfig
from model.controls import CONTROL_NAMES, NUM_CONTROLS
from model.motion import fetch
from model.training.train_fields import fields_loss
from model.training.train_vae import Sample
from model.vae import ReferenceVAE

SIZE = 256


def test_a_shift_that_is_told_is_learnt() -> None:
    torch.manual_seed(0)
    vae = ReferenceVAE(VAEConfig(patch=16, time_stride=4, frame_channels=2, widths=(4, 6, 8))).requires_grad_(False)
    torch.nn.init.constant_(vae.reference.person.edge[-1].bias, 20.0)  # all of it is the person
    fields = vae.reference.fields.requires_grad_(True)
    picture = torch.nn.functional.interpolate(torch.randn(1, 3, 12, 12), size=(SIZE, SIZE), mode="bicubic").clamp(-1, 1)
    moves = torch.zeros(2, NUM_CONTROLS)
    moves[:, CONTROL_NAMES.index("x")] = torch.tensor([1.0, -1.0])
    motion = torch.zeros(2, 2, SIZE // 2, SIZE // 2)
    motion[0, 0], motion[1, 0] = -4.0, 4.0  # a head that has gone to the right comes from the left
    nothing, everything = torch.zeros(2, 1, SIZE, SIZE), torch.ones(2, 1, SIZE, SIZE)
    sample = Sample(fetch(picture, motion), picture, nothing[:1], everything[:1], motion, everything[..., ::2, ::2], nothing, moves)
    optimiser = torch.optim.Adam(fields.parameters(), lr=1e-3)
    for _ in range(40):
        loss = fields_loss(vae, sample, "cpu")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    moved = vae.reference(picture).moved(moves)
    middle = (..., slice(16, -16), slice(16, -16))
    assert (moved.motion.total().person - motion)[middle].abs().mean() < 1.0, "of 4 pixels"
    assert (moved.shown() - sample.frames)[middle].abs().mean() < 0.5 * (picture - sample.frames)[middle].abs().mean()
