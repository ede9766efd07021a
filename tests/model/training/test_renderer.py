"""The synthetic presenters: people are fixed by their seed, frames are deterministic, and the pose moves what it names.

Pictures need the head model (not part of the repository) and an EGL driver; the tests of them are skipped without.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from model.training.assets import find_head, pack
from model.training.head import Head
from model.training.people import BACKDROPS, FramePose, Person

HEAD_FILE = Path(__file__).resolve().parents[4] / "shared" / "assets" / "ict_facekit.npz"
STILL = FramePose(np.zeros(57, np.float32))


@pytest.fixture(scope="module")
def head() -> Head:
    if not HEAD_FILE.exists():
        pytest.skip(f"no head model at {HEAD_FILE}")
    return find_head(HEAD_FILE)


@pytest.fixture(scope="module")
def renderer(head: Head) -> Iterator:
    pytest.importorskip("moderngl")
    from model.training.renderer import Renderer

    try:
        made = Renderer(head)
    except Exception as error:  # moderngl and glcontext raise bare Exception when no EGL device opens
        pytest.skip(f"no EGL: {error}")
    yield made


def _shaped(head: Head, **shapes: float) -> FramePose:
    weights = np.zeros(len(head.expression_names), np.float32)
    for name, value in shapes.items():
        weights[head.expression_names.index(name)] = value
    return FramePose(weights)


def _changed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(a.astype(int) - b.astype(int)).max(-1) > 8


def test_a_seed_is_one_person() -> None:
    assert Person.sample(4) == Person.sample(4)
    assert Person.sample(4) != Person.sample(5)
    assert len({Person.sample(seed).hair_style for seed in range(80)}) >= 10


def test_expression_shapes_are_named_and_the_lips_are_sealed(head: Head) -> None:
    from model.training.resting import RestingFace

    assert len(head.expression_names) == 57
    upper, lower = head.landmarks68[[61, 62, 63]], head.landmarks68[[67, 66, 65]]
    for seed in range(6):
        face = RestingFace(head, head.neutral(np.array(Person.sample(seed).identity)))
        closed = head.posed(face.neutral, face.weights(STILL))
        opened = head.posed(face.neutral, face.weights(_shaped(head, jawOpen=0.6)))
        assert (closed[upper, 1] <= closed[lower, 1] + 1e-3).all()
        assert (opened[upper, 1] - opened[lower, 1]).min() > 1.0


def test_the_same_frame_is_the_same_picture_whatever_came_before(renderer) -> None:
    first = renderer.render(Person.sample(2), STILL)
    assert first.shape == (256, 256, 3) and first.dtype == np.uint8
    renderer.render(Person.sample(3), FramePose(STILL.expression, yaw=0.2))
    assert np.array_equal(first, renderer.render(Person.sample(2), STILL))


def test_a_jaw_moves_the_mouth_and_nothing_above_the_nose(renderer, head: Head) -> None:
    person = Person.sample(2)
    changed = _changed(renderer.render(person, STILL), renderer.render(person, _shaped(head, jawOpen=0.6)))
    assert changed[120:170, 90:166].mean() > 0.05
    assert changed[:95].mean() < 0.002


def test_turning_the_head_leaves_shoulders_and_backdrop_still(renderer) -> None:
    person = dataclasses.replace(Person.sample(2), hair_style="short")
    changed = _changed(renderer.render(person, STILL), renderer.render(person, FramePose(STILL.expression, yaw=0.25)))
    assert changed[70:150, 80:176].mean() > 0.2
    assert not changed[:, :30].any() and not changed[:, 226:].any()
    assert changed[236:].mean() < 0.02


def test_gaze_and_blink_change_only_the_eyes(renderer, head: Head) -> None:
    person = dataclasses.replace(Person.sample(2), glasses="none")
    still = renderer.render(person, STILL)
    for pose in (FramePose(STILL.expression, gaze_x=0.3), _shaped(head, eyeBlink_L=1.0, eyeBlink_R=1.0)):
        rows = np.flatnonzero(_changed(still, renderer.render(person, pose)).any(1))
        assert rows.min() > 80 and rows.max() < 135


def test_packs_a_folder_of_obj_files(tmp_path: Path) -> None:
    """Quads are split, displacements are taken against the neutral, expressions are sorted by name."""
    body = "vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nusemtl M_Face\nf 1/1 2/2 3/3 4/4\nusemtl M_Teeth\nf 1/1 2/2 3/3\n"
    corners = ((0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0))
    for name, lift in (("generic_neutral_mesh", 0.0), ("identity000", 0.5), ("jawOpen", 1.0), ("browDown_L", 2.0)):
        lines = "".join(f"v {x} {y} {z + lift}\n" for x, y, z in corners)
        (tmp_path / f"{name}.obj").write_text(lines + body)
    (tmp_path / "vertex_indices.json").write_text('{"idx_to_landmark_verts": [3, 1]}')
    pack(tmp_path, tmp_path / "packed.npz")
    with np.load(tmp_path / "packed.npz") as packed:
        assert packed["triangles"].tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 2]]
        assert packed["material"].tolist() == [0, 0, 1]
        assert packed["expression_names"].tolist() == ["browDown_L", "jawOpen"]
        assert packed["expression"].dtype == np.float16 and float(packed["expression"][1, 0, 2]) == 1.0
        assert float(packed["identity"][0, 2, 2]) == 0.5
        assert packed["landmarks68"].tolist() == [3, 1]


def test_a_wrong_path_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="FaceXModel"):
        find_head(tmp_path)
    with pytest.raises(FileNotFoundError, match="ICT-FaceKit"):
        find_head(tmp_path / "missing.npz")


def test_motion_says_where_a_frame_comes_from(head: Head, renderer) -> None:  # type: ignore[no-untyped-def]
    """The source picture, moved as told, is the frame, but for what it does not show: the inside of the mouth."""
    person = Person.sample(8)
    turned = dataclasses.replace(_shaped(head, jawOpen=0.6, eyeBlink_L=1.0, eyeBlink_R=1.0), yaw=0.15, pitch=0.05)
    source, frame = renderer.render(person, STILL), renderer.render(person, turned)
    motion, inside = renderer.motion(person, turned, STILL)
    rows, columns = np.indices(motion.shape[:2])
    moved = source[
        np.clip(np.rint(rows + motion[..., 1]).astype(int), 0, 255), np.clip(np.rint(columns + motion[..., 0]).astype(int), 0, 255)
    ]
    face = np.zeros_like(inside)
    face[70:190, 80:176] = True
    error = np.abs(moved.astype(int) - frame.astype(int)).mean(-1)
    unmoved = np.abs(source.astype(int) - frame.astype(int)).mean(-1)
    assert error[face & ~inside].mean() < 0.45 * unmoved[face & ~inside].mean()
    assert 100 < inside.sum() < 1200
    assert not motion[:8, :8].any()


def test_eyes_are_told_where_they_are_open(renderer, head: Head) -> None:  # type: ignore[no-untyped-def]
    """Two of them, side by side, and hardly any of them closed."""
    person = Person.sample(5)
    shown = renderer.eyes(person, STILL)
    rows, columns = np.nonzero(shown)
    assert rows.min() > 84 and rows.max() < 122 and 60 < shown.sum() < 400
    assert (columns < 128).any() and (columns > 128).any() and not shown[:, 120:136].any()
    assert renderer.eyes(person, _shaped(head, eyeBlink_L=1.0, eyeBlink_R=1.0)).sum() < 0.1 * shown.sum()


def test_a_matte_tells_the_person_from_the_backdrop(renderer) -> None:  # type: ignore[no-untyped-def]
    """The same person before another backdrop differs in what the matte calls backdrop, and hardly in what it calls the person's."""
    person = Person.sample(5)
    elsewhere = dataclasses.replace(person, backdrop=next(kind for kind in BACKDROPS if kind != person.backdrop))
    shown, matte = renderer.layered(person, STILL)
    changed = np.abs(shown.astype(int) - renderer.render(elsewhere, STILL).astype(int)).max(-1)
    assert 0.25 < (matte == 255).mean() < 0.75
    assert changed[matte == 255].mean() < 1.0 and changed[matte == 0].mean() > 10.0
    assert ((matte > 0) & (matte < 255)).sum() > 100  # hair is neither
