"""Where the face sits in the model's picture, and how a photograph is brought there.

The targets are what the face finder sees in rendered presenters (82 people looking straight ahead): box height
99 +- 4.5, middle of the box 127.8 +- 1.8 across, halfway between eyes and mouth 125.1 +- 1.9 down. Across, the box is
steadier than the points when the head turns (3 % of the face against 13 %); down, the box sits 7 pixels differently on
photographs than on renders, the points do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from model.facefinder import Face

SIDE = 256
TARGET_X, TARGET_Y = 128.0, 125.0
TARGET_BOX_HEIGHT = 99.0
PAD_BLUR = 10


@dataclass(frozen=True, slots=True)
class Framing:
    """Square of the source picture that becomes the portrait, in source pixels; it may stick out of the picture."""

    left: float
    top: float
    size: float

    @property
    def scale(self) -> float:
        """Portrait pixels for one source pixel; above 1 the picture is enlarged."""
        return SIDE / self.size

    def missing(self, width: int, height: int) -> float:
        """Share of the portrait that lies outside a picture of this size."""
        across = min(self.left + self.size, width) - max(self.left, 0)
        down = min(self.top + self.size, height) - max(self.top, 0)
        return 1 - across * down / self.size**2

    @property
    def is_identity(self) -> bool:
        """For a 256x256 picture: the face is where a presenter's would be, so there is nothing to gain."""
        shift = max(abs(self.left + self.size / 2 - SIDE / 2), abs(self.top + self.size / 2 - SIDE / 2))
        return shift <= 8 and abs(self.scale - 1) <= 0.12


def framing_for(face: Face) -> Framing:
    scale = TARGET_BOX_HEIGHT / face.height
    x = (face.left + face.right) / 2
    left_eye, right_eye, _, mouth = face.points[:4]
    y = float((left_eye[1] + right_eye[1]) / 2 + mouth[1]) / 2
    return Framing(x - TARGET_X / scale, y - TARGET_Y / scale, SIDE / scale)


def crop(picture: Image.Image, framing: Framing, side: int = SIDE) -> Image.Image:
    """The framed square with `side` pixels a side; what lies outside the picture is its edge drawn out, then blurred."""
    width, height = picture.size
    right, bottom = framing.left + framing.size, framing.top + framing.size
    inner = (
        max(int(np.floor(framing.left)), 0),
        max(int(np.floor(framing.top)), 0),
        min(int(np.ceil(right)), width),
        min(int(np.ceil(bottom)), height),
    )
    before = (max(int(np.ceil(-framing.left)), 0), max(int(np.ceil(-framing.top)), 0))
    after = (max(int(np.ceil(right - width)), 0), max(int(np.ceil(bottom - height)), 0))
    padded = np.pad(
        np.asarray(picture.crop(inner)), ((before[1], after[1]), (before[0], after[0]), (0, 0)), mode="edge"
    )
    left, top = framing.left - inner[0] + before[0], framing.top - inner[1] + before[1]
    square = Image.fromarray(padded).resize(
        (side, side), Image.Resampling.LANCZOS, box=(left, top, left + framing.size, top + framing.size)
    )
    if not any((*before, *after)):
        return square
    return Image.composite(square, square.filter(ImageFilter.GaussianBlur(PAD_BLUR)), _known(framing, width, height, side))


def _known(framing: Framing, width: int, height: int, side: int) -> Image.Image:
    """Mask of the portrait's pixels that come from the picture, feathered inwards."""
    scale = side / framing.size
    x0, x1 = (round((edge - framing.left) * scale) for edge in (0, width))
    y0, y1 = (round((edge - framing.top) * scale) for edge in (0, height))
    mask = np.zeros((side, side), np.uint8)
    mask[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = 255
    # Beyond the portrait's own edge everything counts as known, so that only edges of the picture are feathered.
    outer = Image.fromarray(np.pad(mask, PAD_BLUR, mode="edge"))
    feathered = outer.filter(ImageFilter.MinFilter(2 * (PAD_BLUR // 2) + 1)).filter(ImageFilter.BoxBlur(PAD_BLUR // 2))
    return feathered.crop((PAD_BLUR, PAD_BLUR, PAD_BLUR + side, PAD_BLUR + side))
