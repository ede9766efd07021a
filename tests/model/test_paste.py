"""Following a face and pasting a mouth: the geometry there and back agrees, and nothing else is touched."""

from __future__ import annotations

import av
import numpy as np
import pytest
from PIL import Image

from model.errors import PortraitError
from model.facefinder import find_faces
from model.follow import EVERY, follow_face, steady_framings
from model.framing import Framing, crop
from model.paste import mouth_opacity, paste_mouth, planes
from model.portraits import builtin_portraits


def i420(picture: np.ndarray) -> np.ndarray:
    return av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p").to_ndarray()


def rgb(frame: np.ndarray) -> Image.Image:
    return Image.fromarray(av.VideoFrame.from_ndarray(frame, format="yuv420p").reformat(format="rgb24").to_ndarray())


def scene(name: str, side: int, left: int, top: int) -> np.ndarray:
    """A presenter somewhere in a picture of 480x320."""
    face = Image.open(builtin_portraits()[name]).convert("RGB").resize((side, side))
    whole = Image.new("RGB", (480, 320), (120, 130, 140))
    whole.paste(face, (left, top))
    return np.array(whole)


@pytest.mark.parametrize("framing", [Framing(100.0, 20.0, 256.0), Framing(90.3, 11.7, 231.4), Framing(-60.5, -20.2, 410.9)])
def test_what_was_cut_out_fits_where_it_was(framing: Framing) -> None:
    """A crop pasted back unchanged leaves the frame as it was, up to resampling."""
    y, x = np.mgrid[0:320, 0:480]
    frame = i420(np.stack([128 + 90 * np.sin(x / 23), 128 + 90 * np.cos(y / 19), 128 + 60 * np.sin((x + y) / 31)], -1).astype(np.uint8))
    back = paste_mouth(frame, i420(np.array(crop(rgb(frame), framing))), framing)
    assert np.abs(back[:320].astype(int) - frame[:320]).max() <= 8
    assert np.abs(back[320:].astype(int) - frame[320:]).max() <= 8


def test_pixels_outside_the_mouth_keep_their_bits() -> None:
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (480, 480), dtype=np.uint8)
    framing = Framing(100.0, 20.0, 256.0)
    pasted = paste_mouth(frame, np.full((384, 256), 77, dtype=np.uint8), framing)
    for scale, before, after in zip((1, 2, 2), planes(frame), planes(pasted), strict=True):
        share = np.zeros((320, 480), dtype=np.uint8)
        share[20:276, 100:356] = mouth_opacity()
        touched = share.reshape(320 // scale, scale, 480 // scale, scale).max(axis=(1, 3)) > 0
        assert np.array_equal(before[~touched], after[~touched])
        assert (before[touched] != after[touched]).mean() > 0.9
    assert 0.05 < (mouth_opacity() > 0).mean() < 0.15


def test_a_mouth_outside_the_frame_changes_nothing() -> None:
    frame = np.zeros((480, 480), dtype=np.uint8)
    assert np.array_equal(paste_mouth(frame, np.full((384, 256), 200, dtype=np.uint8), Framing(600.0, 0.0, 256.0)), frame)


def test_a_moving_face_is_followed_and_the_others_are_not() -> None:
    """Two faces; the larger one is found first, and stays the one as it moves."""
    pictures = []
    for step in range(4):
        picture = Image.fromarray(scene("clara", 240, 20 + 12 * step, 40))
        picture.paste(Image.open(builtin_portraits()["henry"]).convert("RGB").resize((150, 150)), (320, 20))
        pictures.append(picture)
    faces = follow_face(pictures)
    middles = [(f.left + f.right) / 2 for f in faces if f is not None]
    assert np.allclose(np.diff(middles), 12, atol=4)
    assert middles[0] == pytest.approx(140, abs=12)


def test_framings_are_steady_and_bridge_short_gaps() -> None:
    (face,) = find_faces(Image.fromarray(scene("clara", 256, 100, 30)))
    framings = steady_framings([face, None, face, face], 3 * EVERY + 2)
    assert len(framings) == 3 * EVERY + 2
    assert {round(f.size, 3) for f in framings} == {round(framings[0].size, 3)}


@pytest.mark.parametrize("missing", [[None] * 4, [None] * 9])
def test_a_long_gap_is_refused_with_its_place(missing: list[None]) -> None:
    (face,) = find_faces(Image.fromarray(scene("clara", 256, 100, 30)))
    faces = [face, face, *missing, face]
    if len(missing) * EVERY <= 25:
        steady_framings(faces, len(faces) * EVERY)
    else:
        with pytest.raises(PortraitError, match="from 0.3 s on"):
            steady_framings(faces, len(faces) * EVERY)
    with pytest.raises(PortraitError, match="from 0.0 s on"):
        steady_framings([None, None], 2 * EVERY)
