"""Sizes, lengths and the face mask by the published rules."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from model.errors import ConfigError
from model.facefinder import Face

FPS = 25
TOKEN_PIXELS = 16  # a side: 8x autoencoder, 2x2 patches


class FaceBox(NamedTuple):
    """In pixels of the original picture."""

    top: float
    bottom: float
    left: float
    right: float


def face_box(face: Face) -> FaceBox:
    """As found, within the picture. On photographs it is within 8 % of the face that MediaPipe's mesh outlines, on every side."""
    return FaceBox(max(face.top, 0.0), max(face.bottom, 0.0), max(face.left, 0.0), max(face.right, 0.0))


def output_size(width: int, height: int, area: int) -> tuple[int, int]:
    """(width, height) of the video: shrunk to the area, never enlarged, sides floored to whole tokens."""
    scale = math.sqrt(width * height / area) if width * height > area else 1.0
    sides = tuple(int(side / scale) // TOKEN_PIXELS * TOKEN_PIXELS for side in (width, height))
    if min(sides) < TOKEN_PIXELS:
        message = f"a picture of {width}x{height} brought to {area} pixels is narrower than {TOKEN_PIXELS} pixels"
        raise ConfigError("picture_too_narrow", message, "Crop it towards a square.")
    return sides[0], sides[1]


def whole_frames(num_frames: int) -> int:
    """The length floored to 4k + 1."""
    return (num_frames - 1) // 4 * 4 + 1


def num_latents(num_frames: int) -> int:
    return (num_frames - 1) // 4 + 1


def face_grid(box: FaceBox, picture: tuple[int, int], video: tuple[int, int]) -> tuple[int, int, int, int]:
    """First and last-but-one row and column of the tokens that a face covers; sizes are (width, height)."""
    scale = math.sqrt(video[0] * video[1] / (picture[0] * picture[1]))
    top, bottom, left, right = (math.floor(side * scale / TOKEN_PIXELS) for side in box)
    return top, bottom, left, right


def face_mask(box: FaceBox, picture: tuple[int, int], video: tuple[int, int]) -> Tensor:
    """[1, rows * columns], 1 where the face is. A small face may leave it empty: the voice then moves nothing."""
    return grid_mask(face_grid(box, picture, video), video)


def covering_grid(box: FaceBox, picture: tuple[int, int], video: tuple[int, int]) -> tuple[int, int, int, int]:
    """As `face_grid`, but a face smaller than a token keeps the tokens that it touches."""
    top, bottom, left, right = face_grid(box, picture, video)
    return top, max(bottom, top + 1), left, max(right, left + 1)


def grid_mask(grid: tuple[int, int, int, int], video: tuple[int, int]) -> Tensor:
    """[1, rows * columns]."""
    top, bottom, left, right = grid
    mask = torch.zeros(1, video[1] // TOKEN_PIXELS, video[0] // TOKEN_PIXELS)
    mask[:, top:bottom, left:right] = 1.0
    return mask.flatten(1)
