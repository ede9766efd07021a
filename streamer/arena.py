"""One block of shared memory, cut into slots of one chunk each: portraits and audio go in, frames come out.

The media process creates it and owns the free list; the worker only maps it. A slot belongs to one request from the
moment it is taken until the answer to that request has been read.
"""

from __future__ import annotations

from multiprocessing.shared_memory import SharedMemory

import numpy as np

from model.geometry import Geometry


class Arena:
    """`num_slots` slots of `chunk_frames` I420 frames. Pass `name` to map an existing one."""

    def __init__(self, geometry: Geometry, num_slots: int, name: str | None = None) -> None:
        rows, columns = geometry.i420_shape
        self._frames_shape = (geometry.chunk_frames, rows, columns)
        self._audio_samples = geometry.step_samples_16k
        self._portrait_shape = (geometry.height, geometry.width, 3)
        self.slot_bytes = geometry.chunk_frames * rows * columns
        needed = max(self._audio_samples * 2, geometry.height * geometry.width * 3)
        if self.slot_bytes < needed:
            raise ValueError(f"a slot of {self.slot_bytes} bytes cannot hold the {needed} bytes of a request")
        self.num_slots = num_slots
        self._memory = SharedMemory(name=name, create=name is None, size=self.slot_bytes * num_slots)
        self._owner = name is None
        self._free = list(range(num_slots)) if self._owner else []

    @property
    def name(self) -> str:
        return self._memory.name

    @property
    def num_free(self) -> int:
        return len(self._free)

    def take(self) -> int | None:
        """A free slot, or None."""
        return self._free.pop() if self._free else None

    def give_back(self, slot: int) -> None:
        assert slot not in self._free, f"slot {slot} was given back twice"
        self._free.append(slot)

    def reset(self) -> None:
        """All slots are free again: only right when no worker is alive."""
        self._free = list(range(self.num_slots))

    def _view(self, slot: int, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        return np.ndarray(shape, dtype=dtype, buffer=self._memory.buf, offset=slot * self.slot_bytes)

    def write_portrait(self, slot: int, portrait: np.ndarray) -> None:
        self._view(slot, self._portrait_shape, np.uint8)[:] = portrait

    def read_portrait(self, slot: int) -> np.ndarray:
        return self._view(slot, self._portrait_shape, np.uint8).copy()

    def write_audio(self, slot: int, audio: np.ndarray) -> None:
        self._view(slot, (self._audio_samples,), np.int16)[:] = audio

    def read_audio(self, slot: int) -> np.ndarray:
        return self._view(slot, (self._audio_samples,), np.int16).copy()

    def write_frames(self, slot: int, frames: np.ndarray) -> None:
        self._view(slot, self._frames_shape, np.uint8)[:] = frames

    def read_frames(self, slot: int) -> np.ndarray:
        """uint8 I420 [chunk_frames, height*3//2, width], a copy: the slot can be reused at once."""
        return self._view(slot, self._frames_shape, np.uint8).copy()

    def close(self) -> None:
        self._memory.close()
        if self._owner:
            self._memory.unlink()
