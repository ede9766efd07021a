"""Generated frames by unit index, joined with their sound at the moment of sending.

Sans-I/O. Neither waits for the other: a frame that is not there in time is the last one again, and its sound goes on; a frame
that comes after its time is dropped. An interrupt drops every later frame of the old epoch.
"""

from __future__ import annotations

import numpy as np

from model.geometry import FRAME_SAMPLES_48K
from streamer.media import MediaUnit
from streamer.timeline import AudioTimeline


class Playout:
    """`repeated` counts units without a frame of their own, `late_dropped` frames that came too late."""

    def __init__(self, timeline: AudioTimeline, chunk_frames: int) -> None:
        self._timeline = timeline
        self._frames: dict[int, np.ndarray] = {}
        self._chunk_frames = chunk_frames
        self._epoch = 0
        self._next = 0
        self.repeated = 0
        self.late_dropped = 0

    def put_frames(self, chunk_index: int, epoch: int, frames: np.ndarray) -> None:
        """Frames uint8 [n, h * 3 // 2, w] of one chunk."""
        if epoch < self._epoch:
            return
        first = chunk_index * len(frames)
        for index, frame in enumerate(frames, start=first):
            if index >= self._next:
                self._frames[index] = frame
            else:
                self.late_dropped += 1

    def interrupt(self, epoch: int, chunk_index: int) -> None:
        """What comes after chunk `chunk_index` belongs to the past epoch; the chunk itself is on screen and is finished."""
        self._epoch = epoch
        end = (chunk_index + 1) * self._chunk_frames
        self._frames = {index: frame for index, frame in self._frames.items() if index < end}

    def next_unit(self, index: int) -> MediaUnit:
        """The unit to send now; indices only grow."""
        frame = self._frames.pop(index, None)
        self._frames = {i: f for i, f in self._frames.items() if i > index}
        self._next = index + 1
        self.repeated += frame is None
        start = index * FRAME_SAMPLES_48K
        return MediaUnit(index, self._epoch, frame, self._timeline.read(start, start + FRAME_SAMPLES_48K))
