"""Upper teeth: drawn once, put where they are found to be, uncovered by an opening mouth; and what training is told of their places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model.motion import pixel_grid
from model.mouth import DEPTH, TEETH_BOX, UpperTeeth, places_by_lips, places_of_teeth
from model.training.train_teeth import bent, off_px


def box_of(planes: torch.Tensor) -> tuple[float, float, float, float]:
    """First and last row and column, as shares, of what is not 0 [3, H, W]."""
    rows, columns = torch.nonzero(planes.abs().sum(dim=0) > 0.05, as_tuple=True)
    return tuple(float(x) / planes.shape[-1] for x in (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1))  # type: ignore[return-value]


def moved_by(teeth: UpperTeeth, x: float, y: float) -> None:
    """As if they were found further right and down, in shares of the picture."""
    with torch.no_grad():
        teeth.out.bias.copy_(torch.tensor([[-2.0 * x, -2.0 * y], *[[0.0, 0.0]] * 5]).flatten() / 0.05)


def drawn_by(teeth: UpperTeeth) -> torch.Tensor:
    picture = torch.zeros(1, 3, 256, 256)
    return teeth(picture, teeth.where(picture))[0]


def test_untrained_teeth_are_the_average_persons() -> None:
    shown = drawn_by(UpperTeeth())
    top, bottom, left, right = box_of(shown)
    assert TEETH_BOX[0] - 1 / 256 <= top < bottom <= TEETH_BOX[1] and TEETH_BOX[2] <= left < right <= TEETH_BOX[3]
    assert 0.1 < right - left < 0.2  # as wide as a mouth
    assert (shown + torch.tensor(DEPTH)[:, None, None]).max() > 0.5  # and white


def test_teeth_are_drawn_where_they_are_found() -> None:
    teeth, before = UpperTeeth(), box_of(drawn_by(UpperTeeth()))
    moved_by(teeth, 10 / 256, 6 / 256)
    top, bottom, left, right = np.subtract(box_of(drawn_by(teeth)), before) * 256
    assert (round(left), round(right), round(top), round(bottom)) == (10, 10, 6, 6)


def test_places_are_told_from_the_lips_wherever_and_however_large_they_are() -> None:
    """At the lips' middle all waves start: nothing of sines, all of cosines. A mouth of half the size has waves half as long."""
    unmoved = UpperTeeth().unmoved[None]
    moved = unmoved.clone()
    moved[0, 0] = torch.tensor([-20 / 128, 10 / 128])  # the place 20 further right and 10 further up has the average's middle
    smaller = unmoved * 2.0
    smaller[0, 0] = -torch.tensor([0.0022, 0.1473])  # about the lips' own middle
    planes = places_by_lips(torch.cat((unmoved, moved, smaller)), torch.zeros(256, 256))
    middles = [np.unravel_index(int(near.argmax()), near.shape) for near in planes[:, 0]]
    (row, column), (row_moved, column_moved), (row_smaller, column_smaller) = ((int(r), int(c)) for r, c in middles)
    assert (row, column) == (146, 128) and (row_moved, column_moved) == (136, 148) and (row_smaller, column_smaller) == (row, column)
    torch.testing.assert_close(planes[0, :, row - 8 : row + 9, column], planes[1, :, row_moved - 8 : row_moved + 9, column_moved])
    upwards = 2  # of the shortest wave's sines: along x, along y
    whole = planes[0, upwards, row : row + 9 : 2, column] / planes[0, 0, row : row + 9 : 2, column]
    half = planes[2, upwards, row_smaller : row_smaller + 5, column_smaller] / planes[2, 0, row_smaller : row_smaller + 5, column_smaller]
    torch.testing.assert_close(half, whole, rtol=0, atol=0.15)


def test_augmented_pictures_keep_their_teeth() -> None:
    """Wherever augmentation takes a spot of a picture, and whether it mirrors it or not, it is still told its place."""
    spot = torch.tensor([20.0, 150.0])  # right of the middle, on the row of teeth
    grid = pixel_grid(256, 256, torch.device("cpu"))
    picture = torch.exp(-((grid * 128 + 128 - torch.tensor([128.0 + spot[0], spot[1]])) ** 2).sum(dim=-1) / 8.0) * 2.0 - 1.0
    shown, places = bent(picture.expand(16, 3, -1, -1), UpperTeeth().unmoved.expand(16, -1, -1), np.random.default_rng(0))
    sides = set()
    for one, at in zip(shown, places, strict=True):
        row, column = np.unravel_index(int(one.mean(dim=0).argmax()), one.shape[1:])
        x, y = at[row, column] * 128 + 128
        sides.add(int((x - 128).sign()))
        assert abs(abs(x - 128) - spot[0]) < 2.5 and abs(y - spot[1]) < 2.5
    assert sides == {-1, 1}


def test_errors_count_where_teeth_are() -> None:
    true = places_of_teeth(UpperTeeth().unmoved[None], pixel_grid(256, 256, torch.device("cpu")))
    found = true.clone()
    found[:, :64] += 1.0  # far above the mouth
    assert off_px(found, true, 256).max() == 0
    assert torch.allclose(off_px(true + torch.tensor([2.0, 4.0]) / 256, true, 256).mean(dim=0), torch.tensor([1.0, 2.0]))


def test_the_renderer_knows_where_teeth_are() -> None:
    """Teeth seen through an open mouth are where a map from closed lips says."""
    head_file = Path(__file__).resolve().parents[3] / "shared" / "assets" / "ict_facekit.npz"
    if not head_file.exists():
        pytest.skip(f"no head model at {head_file}")
    pytest.importorskip("moderngl")
    from model.controls import neutral_controls
    from model.training.clips import pose_of
    from model.training.head import Head
    from model.training.people import Person
    from model.training.renderer import Renderer
    from model.training.teeth import average_person, place_of_teeth, seen_teeth
    from model.training.visemes import MOUTH_SHAPES

    head = Head.load(head_file)
    try:
        renderer = Renderer(head)
    except Exception as error:  # moderngl and glcontext raise bare Exception when no EGL device opens
        pytest.skip(f"no EGL: {error}")
    still = pose_of(head, neutral_controls(), np.zeros(len(MOUTH_SHAPES), dtype=np.float32))
    average = renderer.upper_teeth(average_person(), still)[..., 3] / 255.0
    controls = neutral_controls()
    controls[:3] += 0.7  # turned, bowed and tilted
    for seed in (3, 12):
        person, pose = Person.sample(seed), pose_of(head, controls, np.zeros(len(MOUTH_SHAPES), dtype=np.float32))
        seen = renderer.upper_teeth(person, pose)[..., 3] / 255.0
        where = place_of_teeth(seen_teeth(head, person, pose), seen_teeth(head, average_person(), still))
        places = places_of_teeth(torch.from_numpy(where)[None], pixel_grid(*seen.shape, torch.device("cpu")))
        carried = torch.nn.functional.grid_sample(torch.from_numpy(average)[None, None].float(), places, align_corners=False)[0, 0].numpy()
        unmoved = np.minimum(seen, average).sum() / np.maximum(seen, average).sum()
        overlap = np.minimum(seen, carried).sum() / np.maximum(seen, carried).sum()
        assert overlap > 0.8 > 0.65 > unmoved
