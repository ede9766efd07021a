"""Find faces in a picture with a 100k-weight network evaluated in numpy.

A picture is prepared in the process that answers requests, which must not load torch, and OpenCV would add 60 MB and
a second owner of `cv2`. So the weights of MediaPipe's short-range detector (weights/facefinder.NOTICE) run here as
plain array code: a stem, sixteen depthwise-separable residual blocks, two grids of anchors. The network sees 128x128
windows; a pyramid of them finds small faces. Thread-safe; 0.1 s of one core a picture: keep it off the event loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

WEIGHTS = Path(__file__).with_name("weights") / "facefinder.safetensors"
INPUT = 128
MIN_SCORE = 0.6
STRIDED_BLOCKS = (2, 5, 11)
FINE_GRID_BLOCK = 10  # the 16x16 grid of anchors reads this block's output, the 8x8 grid reads the last one's
NUM_BLOCKS = 16


@dataclass(frozen=True, slots=True)
class Face:
    """One face, in pixels of the picture. `points` [6, 2]: left and right eye (as seen), nose tip, mouth, two ears."""

    left: float
    top: float
    right: float
    bottom: float
    score: float
    points: np.ndarray

    @property
    def height(self) -> float:
        return self.bottom - self.top

    def overlap(self, other: Face) -> float:
        """Shared area over the smaller one's area, so that a box inside another counts as the same face."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        if width <= 0 or height <= 0:
            return 0.0
        areas = [(face.right - face.left) * face.height for face in (self, other)]
        return width * height / min(areas)


@dataclass(frozen=True, slots=True)
class Window:
    """A square of the picture, in pixels; it may stick out."""

    left: float
    top: float
    size: float

    def cuts(self, face: Face, width: int, height: int) -> bool:
        """Whether the window's own edge, not the picture's, runs through the face."""
        margin = 0.02 * self.size
        right, bottom = self.left + self.size, self.top + self.size
        return (
            (face.left < self.left + margin and self.left > 0)
            or (face.top < self.top + margin and self.top > 0)
            or (face.right > right - margin and right < width)
            or (face.bottom > bottom - margin and bottom < height)
        )


def find_faces(picture: Image.Image) -> list[Face]:
    """Faces of an RGB picture, the largest first."""
    width, height = picture.size
    side = max(width, height)
    found = _search(picture, [*_windows(width, height, side), *_windows(width, height, side / 2)])
    if not found:
        found = _search(picture, _windows(width, height, side / 4))
    # A second look with the face in the middle of the window: better points, and chance patterns are not found again.
    refined = [again for face in found if (again := look_again(picture, face)) is not None]
    return sorted(_distinct(refined), key=lambda face: face.height, reverse=True)


def _windows(width: int, height: int, size: float) -> list[Window]:
    return [Window(left, top, size) for top in _starts(height, size) for left in _starts(width, size)]


def _starts(length: int, size: float) -> list[float]:
    """Starts of windows along one axis, overlapping by half or more; one centred window when it covers the axis."""
    if size >= length:
        return [(length - size) / 2]
    num = int(np.ceil((length - size) / (size / 2))) + 1
    return [float(start) for start in np.linspace(0, length - size, num)]


def _search(picture: Image.Image, windows: list[Window]) -> list[Face]:
    raw_scores, raw_boxes = _network(np.stack([_pixels(picture, window) for window in windows]))
    scores = 1 / (1 + np.exp(-np.clip(raw_scores, -80, 80)))
    found = []
    for index, anchor in np.argwhere(scores >= MIN_SCORE):
        face = _decode(raw_boxes[index, anchor], _anchors()[anchor], float(scores[index, anchor]), windows[index])
        if not windows[index].cuts(face, *picture.size):
            found.append(face)
    return _distinct(found)


def look_again(picture: Image.Image, face: Face) -> Face | None:
    """The face that is now where one was before; None when there is none. One look at the network, a tenth of a whole search."""
    size = 2.2 * face.height
    window = Window((face.left + face.right - size) / 2, (face.top + face.bottom - size) / 2, size)
    again = _search(picture, [window])
    return max((f for f in again if f.overlap(face) > 0.5), key=lambda f: f.score, default=None)


def _distinct(faces: list[Face]) -> list[Face]:
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: face.score, reverse=True):
        if all(face.overlap(other) < 0.4 for other in kept):
            kept.append(face)
    return kept


def _pixels(picture: Image.Image, window: Window) -> np.ndarray:
    """The window as float32 [128, 128, 3] in -1..1; grey where it leaves the picture."""
    left, top = round(window.left), round(window.top)
    size = max(round(window.size), 1)
    square = picture.crop((left, top, left + size, top + size)).resize((INPUT, INPUT), Image.Resampling.BILINEAR)
    return np.asarray(square, np.float32) / 127.5 - 1


@cache
def _anchors() -> np.ndarray:
    """Centres [896, 2] as x, y in 0..1: two anchors a cell of the 16x16 grid, six a cell of the 8x8 grid."""
    grids = []
    for cells, repeat in ((16, 2), (8, 6)):
        y, x = np.mgrid[0:cells, 0:cells]
        grids.append(np.repeat((np.stack([x, y], -1).reshape(-1, 2) + 0.5) / cells, repeat, axis=0))
    return np.concatenate(grids).astype(np.float32)


def _decode(raw: np.ndarray, anchor: np.ndarray, score: float, window: Window) -> Face:
    """`raw` [16]: centre, width and height, six points, in window pixels relative to the anchor."""
    pairs = raw.reshape(8, 2) / INPUT
    origin = np.array([window.left, window.top])
    centre, points = ((pairs[0] + anchor) * window.size + origin, (pairs[2:] + anchor) * window.size + origin)
    half = pairs[1] * window.size / 2
    (left, top), (right, bottom) = centre - half, centre + half
    return Face(float(left), float(top), float(right), float(bottom), score, points)


@cache
def _weights() -> dict[str, np.ndarray]:
    return {name: array.astype(np.float32) for name, array in load_file(WEIGHTS).items()}


def _network(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Windows [N, 128, 128, 3] -> logits [N, 896] and boxes [N, 896, 16]."""
    w = _weights()
    x = np.maximum(_stem(x, w["stem.weight"]) + w["stem.bias"], 0)
    fine = x
    for block in range(NUM_BLOCKS):
        x = _block(x, w, f"block{block:02d}", stride=2 if block in STRIDED_BLOCKS else 1)
        if block == FINE_GRID_BLOCK:
            fine = x
    num = len(x)
    heads = [(fine, "16"), (x, "8")]
    scores = [(y @ w[f"score{grid}.weight"] + w[f"score{grid}.bias"]).reshape(num, -1) for y, grid in heads]
    boxes = [(y @ w[f"box{grid}.weight"] + w[f"box{grid}.bias"]).reshape(num, -1, 16) for y, grid in heads]
    return np.concatenate(scores, axis=1), np.concatenate(boxes, axis=1)


def _stem(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """5x5 convolution with stride 2; padding as TensorFlow's SAME: one before, two after."""
    x = np.pad(x, ((0, 0), (1, 2), (1, 2), (0, 0)))
    size = INPUT // 2
    return sum(
        x[:, i : i + 2 * size : 2, j : j + 2 * size : 2] @ weight[i, j]
        for i in range(weight.shape[0])
        for j in range(weight.shape[1])
    )


def _block(x: np.ndarray, w: dict[str, np.ndarray], name: str, stride: int) -> np.ndarray:
    """relu(point(depth(x)) + skip), the skip pooled and padded with empty channels where the block changes shape."""
    before = 1 if stride == 1 else 0
    padded = np.pad(x, ((0, 0), (before, 1), (before, 1), (0, 0)))
    depth, size = w[f"{name}.depth.weight"], x.shape[1]
    y = sum(padded[:, i : i + size : stride, j : j + size : stride] * depth[i, j] for i in range(3) for j in range(3))
    y = (y + w[f"{name}.depth.bias"]) @ w[f"{name}.point.weight"] + w[f"{name}.point.bias"]
    if stride == 2:
        x = x.reshape(len(x), size // 2, 2, size // 2, 2, -1).max(axis=(2, 4))
    y[..., : x.shape[-1]] += x
    return np.maximum(y, 0)
