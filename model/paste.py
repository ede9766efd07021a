"""A generated mouth back into the frame it belongs to: lower face only, feathered; every other pixel stays the frame's own bits.

Works on I420 planes, which is what decoders give and encoders take, so nothing is lost to a conversion of the whole picture.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from model.framing import SIDE, Framing

# The lower face in a portrait's pixels: middle and half axes of the rounded rectangle where pixels may change, from below the nose to
# below an open jaw. The rim of it, this share of the way to the middle, is feathered.
MIDDLE, HALF_AXES = (128.0, 170.0), (50.0, 43.0)
_FEATHER = 0.35


def mouth_opacity() -> np.ndarray:
    """How much of each portrait pixel is taken from the generated picture, uint8 [256, 256]."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] + 0.5
    out = (np.abs(x - MIDDLE[0]) / HALF_AXES[0]) ** 4 + (np.abs(y - MIDDLE[1]) / HALF_AXES[1]) ** 4
    share = np.clip((1.0 - out**0.25) / _FEATHER, 0.0, 1.0)
    return np.round(255 * share * share * (3 - 2 * share)).astype(np.uint8)


def paste_mouth(frame: np.ndarray, drawn: np.ndarray, framing: Framing) -> np.ndarray:
    """frame: uint8 I420 [H*3//2, W]; drawn: the framed square of it as generated, uint8 I420 [384, 256]. A new frame."""
    opacity = mouth_opacity()
    half = opacity.reshape(SIDE // 2, 2, SIDE // 2, 2).mean(axis=(1, 3)).round().astype(np.uint8)
    out = frame.copy()
    for scale, into, source, share in zip((1, 2, 2), planes(out), planes(drawn), (opacity, half, half), strict=True):
        _blend(into, source, share, Framing(framing.left / scale, framing.top / scale, framing.size / scale))
    return out


def planes(i420: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Views of luma [H, W] and both chroma planes [H/2, W/2]."""
    height, width = i420.shape[0] * 2 // 3, i420.shape[1]
    chroma = i420[height:].reshape(2, height // 2, width // 2)
    return i420[:height], chroma[0], chroma[1]


def _blend(into: np.ndarray, source: np.ndarray, share: np.ndarray, framing: Framing) -> None:
    side = len(source)
    per_pixel = side / framing.size
    edges = [
        (np.array([middle - axis, middle + axis]) / SIDE * framing.size + start)
        for middle, axis, start in zip(MIDDLE, HALF_AXES, (framing.left, framing.top), strict=True)
    ]
    (x0, x1), (y0, y1) = (
        (max(int(np.floor(low)) - 1, 0), min(int(np.ceil(high)) + 1, length))
        for (low, high), length in zip(edges, into.shape[::-1], strict=True)
    )
    if x1 <= x0 or y1 <= y0:
        return
    way = (per_pixel, 0.0, (x0 - framing.left) * per_pixel, 0.0, per_pixel, (y0 - framing.top) * per_pixel)

    def fetched(plane: np.ndarray, filtered: Image.Resampling) -> np.ndarray:
        moved = Image.fromarray(plane).transform((x1 - x0, y1 - y0), Image.Transform.AFFINE, way, filtered)
        return np.asarray(moved, np.float32)

    part = into[y0:y1, x0:x1]
    weight = fetched(share, Image.Resampling.BILINEAR) / 255
    blended = part + (fetched(source, Image.Resampling.BICUBIC) - part) * weight
    part[weight > 0] = np.round(blended[weight > 0]).clip(0, 255).astype(np.uint8)
