"""How a portrait is moved: what moves mean for every pixel, and how a pose is found again."""

from __future__ import annotations

import pytest
import torch

from model.conditions import move_tokens
from model.config import VAEConfig
from model.controls import NUM_CONTROLS
from model.fields import EyeFinder, MotionFields, PersonFinder
from model.layers import matte_of
from model.lids import lids_of
from model.motion import (
    BLINK,
    NUM_FIELDS,
    NUM_HEAD_CONTROLS,
    NUM_HEAD_TERMS,
    fetch,
    portrait_motion,
    terms,
)
from model.pose import PoseFit

SIDE = 128


def smooth_fields() -> torch.Tensor:
    """Fields as smooth as a head's [1, NUM_FIELDS, 2, SIDE, SIDE], a few pixels a move."""
    coarse = torch.randn(NUM_FIELDS, 2, 4, 4, generator=torch.Generator().manual_seed(0)) * 3.0
    coarse[5:] *= 0.2
    return torch.nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic", align_corners=False)[None]


def test_no_moves_change_nothing() -> None:
    assert not terms(torch.zeros(3, NUM_CONTROLS)).any()
    shift, head, within = portrait_motion(smooth_fields(), torch.zeros(3, NUM_CONTROLS))
    assert not any(part.any() for part in (shift, head, *within))


def test_a_point_is_seen_where_it_was_moved_to() -> None:
    """Displacements say where points go; motion, where a pixel is fetched from: followed there, one leads back along the other."""
    fields, moves = smooth_fields(), torch.zeros(2, NUM_CONTROLS)
    moves[:, :NUM_HEAD_CONTROLS] = torch.randn(2, NUM_HEAD_CONTROLS, generator=torch.Generator().manual_seed(1)) * 0.5
    shift, head, _ = portrait_motion(fields, moves)
    torch.testing.assert_close(shift, torch.einsum("fk,kchw->fchw", terms(moves)[:, :NUM_HEAD_TERMS], fields[0, :NUM_HEAD_TERMS]))
    left = (head + fetch(shift, head))[..., 16:-16, 16:-16]
    assert shift.abs().max() > 3.0
    assert left.abs().max() < 0.15


def test_untrained_networks_leave_the_portrait_alone() -> None:
    config = VAEConfig(patch=16, time_stride=4, frame_channels=2, widths=(4, 6, 8))
    picture = torch.rand(2, 3, 64, 64)
    eyes = EyeFinder(config)(picture, torch.rand(2, 4, 16, 16), torch.rand(2, 6, 8, 8), torch.rand(2, 8, 4, 4))
    person = PersonFinder()(picture)
    fields = MotionFields()(picture, matte_of(person))
    assert fields.shape == (2, NUM_FIELDS, 2, 32, 32) and not fields.any()
    assert eyes.shape == (2, 64, 64) and lids_of(eyes).reach.max() < 0.01
    assert person.shape == (2, 64, 64) and not matte_of(person).any()


def test_a_pose_is_found_from_how_pixels_moved() -> None:
    fields, moves = smooth_fields(), torch.zeros(3, NUM_CONTROLS)
    moves[:, :NUM_HEAD_CONTROLS] = torch.randn(3, NUM_HEAD_CONTROLS, generator=torch.Generator().manual_seed(2)) * 0.5
    seen, matte = portrait_motion(fields, moves).total().person, torch.ones(1, 1, 256, 256)
    matte[..., :60], seen[..., :30] = 0.0, 9.0  # what a backdrop seems to do says nothing
    found = PoseFit(fields, matte)(seen)
    assert not found[:, BLINK:].any()
    torch.testing.assert_close(found, moves, rtol=0, atol=0.12)


@pytest.mark.parametrize("frame", [0, 5])
def test_move_tokens_hold_mean_and_slope_apart(frame: int) -> None:
    """A move held still is in the mean alone; one that grows is in the slope as well."""
    still = torch.zeros(8, NUM_CONTROLS)
    still[:, 2] = 0.7
    growing = still + torch.arange(8.0)[:, None] * 0.1
    held, grown = (move_tokens(moves).unflatten(-1, (4, NUM_CONTROLS))[frame // 4] for moves in (still, growing))
    assert held[0, 2] == pytest.approx(0.7) and held[1:].abs().max() < 1e-5
    assert grown[1].abs().min() > 0.5
