"""Where a face is throughout a clip: found once, then looked for where it was, and steadied."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from PIL import Image

from model.errors import PortraitError
from model.facefinder import Face, find_faces, look_again
from model.framing import Framing, framing_for

EVERY = 4  # frames between two looks; in between the way is straight
MAX_MISSING_S = 1.0
_FPS = 25


def follow_face(pictures: Iterable[Image.Image]) -> list[Face | None]:
    """The face of each picture, RGB; None where none is seen. Of several the largest at first, then always the same one."""
    followed: list[Face | None] = []
    last: Face | None = None
    for picture in pictures:
        seen = look_again(picture, last) if last is not None else None
        if seen is None:
            found = find_faces(picture)
            near = [face for face in found if last is None or face.overlap(last) > 0.1]
            seen = near[0] if near else None
        followed.append(seen)
        last = seen or last
    return followed


def steady_framings(faces: list[Face | None], num_frames: int) -> list[Framing]:
    """One framing a frame, from one face every EVERY frames. Raises PortraitError where no face is seen for over a second."""
    seen = np.array([face is not None for face in faces])
    gaps = np.diff(np.concatenate(([-1], np.flatnonzero(seen), [len(seen)]))) - 1
    if not seen.any() or gaps.max() * EVERY > MAX_MISSING_S * _FPS:
        first = 0 if not seen.any() else int(np.flatnonzero(np.convolve(~seen, np.ones(gaps.max()), "valid") == gaps.max())[0])
        raise PortraitError(
            "no_face",
            f"The video shows no face from {first * EVERY / _FPS:.1f} s on, for over {MAX_MISSING_S:.0f} s.",
            "Use a part of it in which one face is seen throughout, from the front.",
        )
    found = [framing_for(face) for face in faces if face is not None]
    values = np.array([(f.left + f.size / 2, f.top + f.size / 2, f.size) for f in found])
    every = np.arange(len(faces))
    filled = np.stack([np.interp(every, np.flatnonzero(seen), column) for column in values.T])
    padded = np.pad(filled, ((0, 0), (1, 1)), mode="edge")
    steadied = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
    x, y, size = (np.interp(np.arange(num_frames), every * EVERY, row) for row in steadied)
    return [Framing(float(a - c / 2), float(b - c / 2), float(c)) for a, b, c in zip(x, y, size, strict=True)]
