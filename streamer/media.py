"""The media unit: one video frame and the 40 ms of sound that belong to it travel together, so they cannot drift apart.

Also the bar code that measurements read back from the picture: the unit's index, drawn as black and white squares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

VIDEO_CLOCK = 90_000
VIDEO_TICKS = 3_600  # of one frame at 25 fps
BARCODE_BITS = 24
BARCODE_CELL = 8  # pixels; survives video compression
_BLACK, _WHITE = 16, 235


@dataclass(frozen=True, slots=True)
class MediaUnit:
    """`index` counts from the session's start and gives both timestamps; `epoch` is raised by every interrupt."""

    index: int
    epoch: int
    frame: np.ndarray | None  # I420 uint8 [h * 3 // 2, w]; None = show the last one again
    audio: np.ndarray  # int16 [1920], 48 kHz mono


def draw_barcode(frame: np.ndarray, value: int) -> None:
    """Draws a white and a black guard square and then 24 bits, most significant first, along the upper edge. In place."""
    width = frame.shape[1]
    height = frame.shape[0] * 2 // 3
    bits = [1, 0, *((value >> shift) & 1 for shift in range(BARCODE_BITS - 1, -1, -1))]
    luma = np.repeat(np.where(np.array(bits), _WHITE, _BLACK).astype(np.uint8), BARCODE_CELL)
    frame[:BARCODE_CELL, : len(luma)] = luma
    chroma = frame[height:].reshape(2, height // 2, width // 2)
    chroma[:, : BARCODE_CELL // 2, : len(luma) // 2] = 128


def read_barcode(luma: np.ndarray) -> int | None:
    """The value in a luma plane [h, w], or None when the guard squares are not there."""
    centres = np.arange(BARCODE_BITS + 2) * BARCODE_CELL + BARCODE_CELL // 2
    cells = [float(luma[2:6, c - 2 : c + 2].mean()) for c in centres]
    if cells[0] < 170 or cells[1] > 85:
        return None
    return int("".join("1" if cell > 127 else "0" for cell in cells[2:]), 2)
