"""Lids close over eyes, with skin that a face has, and move nothing else."""

from __future__ import annotations

import torch

from model.lids import Lids, lids_of, skinned, with_lids

SIDE = 128


def eyed_logits() -> torch.Tensor:
    shows = torch.zeros(1, SIDE, SIDE)
    shows[0, 46:54, 40:56] = 1.0
    return shows * 20 - 10


def eyed() -> tuple[torch.Tensor, Lids]:
    """A picture of skin (1 above the eye, falling towards the top) with one dark eye, 16 columns wide and 8 rows high, and its lids."""
    picture = torch.linspace(0.0, 2.0, SIDE)[None, None, :, None].expand(1, 1, SIDE, SIDE).clone()
    picture[0, 0, 46:54, 40:56] = -1.0
    return picture, lids_of(eyed_logits())


def test_lids_are_where_an_eye_is_and_nowhere_else() -> None:
    _, lids = eyed()
    assert (lids.top[0, 42:54] - 45.5).abs().max() < 0.05, "the upper edge of row 46"
    assert (lids.reach[0, 42:54] - 8.0).abs().max() < 0.8
    assert lids.reach[0, :38].max() < 0.05 and lids.reach[0, 58:].max() < 0.05
    halved = lids.halved()
    assert (halved.top[0, 21:27] - 22.5).abs().max() < 0.05 and (halved.reach[0, 21:27] - 4.0).abs().max() < 0.4


def test_the_skin_above_comes_down_over_the_eye() -> None:
    """Open eyes are the portrait's own, to the bit; a closed lid leaves nothing of the eye, is skin in the order it was, and moves
    nothing above its strip; half closed, the upper half of the eye is gone."""
    picture, lids = eyed()
    opened, half, closed = with_lids(picture, lids, torch.tensor([0.0, 0.34, 1.0]))
    assert torch.equal(opened, picture[0])
    column = 48
    assert (closed[0, :, column] >= 0).all()
    assert (closed[0, 30:54, column].diff() > -1e-3).all(), "no fold"
    changed = (closed - picture[0])[0].abs()
    assert changed[:38].max() < 1e-3 and changed[55:].max() < 1e-3 and changed[:, :37].max() < 1e-3
    assert (half[0, 46:49, column] > 0).all() and (half[0, 51:54, column] == -1.0).all()


def test_a_brow_taken_for_an_eye_has_no_lid() -> None:
    """What shows above an eye, with skin between, is left out; a narrow gap within one eye, as of a highlight, is not."""
    logits = eyed_logits().repeat(3, 1, 1)
    logits[0, 38:42, 40:56] = 10.0
    logits[1, 49:51, 46:48] = -10.0
    logits[2, 38:42, 34:38] = 10.0  # beside the eye
    alone = lids_of(eyed_logits())
    for lids in (lids_of(one) for one in logits.split(1)):
        assert lids.reach[0, :37].max() < 0.05
        assert (lids.top - alone.top)[0, 42:54].abs().max() < 0.7 and (lids.reach - alone.reach)[0, 42:54].abs().max() < 1.0


def face(above: float) -> tuple[torch.Tensor, Lids]:
    """Light skin with a dark eye, and something of another brightness from five rows above the eye up; in [-1, 1]."""
    picture = torch.full((1, 3, SIDE, SIDE), 0.6)
    picture[..., 30:44, 36:60] = above
    picture[..., 46:54, 40:56] = -1.0
    return picture, lids_of(eyed_logits())


def test_a_low_brow_stays_where_it_is() -> None:
    """Skin above is stretched over the eye as it was; where a brow is next, the lid is of the skin below, and the brow does not move."""
    picture, lids = face(0.5)
    assert not skinned(lids, picture).below.any() and torch.equal(skinned(lids, picture).strip, lids.strip)
    picture, lids = face(-0.9)
    dragged = with_lids(picture, lids, torch.ones(1))[0]
    closed = with_lids(picture, skinned(lids, picture), torch.ones(1))[0]
    assert (dragged[0, 46:52, 48] < -0.5).any(), "what would be seen otherwise"
    assert (closed[:, 47:52, 48] > 0.0).all()
    assert torch.equal(closed[:, :43], picture[0, :, :43]) and torch.equal(closed[:, 56:], picture[0, :, 56:])
    both = skinned(Lids.cat([lids, lids]), torch.cat((face(0.5)[0], picture)))
    assert both.below.amax(dim=1).tolist() == [0.0, 1.0], "each face for itself"
