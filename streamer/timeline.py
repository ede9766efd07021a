"""A session's sound by absolute sample index: what the microphone or an agent delivered, holes and all.

Sans-I/O. 48 kHz mono int16 in blocks of a second; blocks that were played ten seconds ago are forgotten, so memory is bounded by what is
queued. Holes read as silence and their edges are faded over 5 ms, because a step in a waveform is heard as a click.
"""

from __future__ import annotations

import numpy as np

from model.geometry import MEDIA_RATE

FADE_SAMPLES = MEDIA_RATE * 5 // 1000
_KEEP_S = 10
_TAPS = 97
_CUTOFF_HZ = 7_400.0


def _decimation_filter() -> np.ndarray:
    """Linear-phase low pass for 48 to 16 kHz: Kaiser-windowed sinc, unit gain, float32 [_TAPS]."""
    n = np.arange(_TAPS) - _TAPS // 2
    taps = np.sinc(2 * _CUTOFF_HZ / MEDIA_RATE * n) * np.kaiser(_TAPS, 7.0)
    normalised: np.ndarray = (taps / taps.sum()).astype(np.float32)
    return normalised


_FILTER = _decimation_filter()
_FADE_OUT = np.linspace(1.0, 0.0, FADE_SAMPLES, dtype=np.float32)


class AudioTimeline:
    """Written at any place, read at any place; `read` moves the floor below which late packets are of no use."""

    def __init__(self) -> None:
        self._blocks: dict[int, np.ndarray] = {}
        self._known: list[list[int]] = []  # disjoint [start, stop), ascending
        self._floor = 0

    def write(self, start: int, samples: np.ndarray) -> None:
        """int16 [n] at absolute index `start`; parts below what was read already are dropped."""
        stop = start + len(samples)
        if start < self._floor:
            samples = samples[self._floor - start :]
            start = self._floor
        if start >= stop:
            return
        self._store(start, samples)
        self._mark(start, stop)

    def append(self, samples: np.ndarray) -> None:
        """After the last known sample, or at the floor."""
        end = self._known[-1][1] if self._known else 0
        self.write(max(end, self._floor), samples)

    def complete_until(self) -> int:
        """All samples below this index are known."""
        if self._known and self._known[0][0] <= 0:
            return self._known[0][1]
        return 0

    def conceal_until(self, index: int) -> None:
        """What is missing below `index` becomes silence; the sound around a hole fades out and in."""
        holes = []
        position = 0
        for start, stop in [*self._known, [index, index]]:
            if start > position and position < index:
                holes.append((position, min(start, index)))
            position = max(position, stop)
        for start, stop in holes:
            self._fade(start - FADE_SAMPLES, start, _FADE_OUT)
            self._fade(stop, stop + FADE_SAMPLES, _FADE_OUT[::-1])
            self._mark(start, stop)

    def read(self, start: int, stop: int) -> np.ndarray:
        """int16 [stop - start], zeros where nothing is known. For playing: moves the floor."""
        samples = self._load(start, stop)
        self._floor = max(self._floor, stop)
        for block in [b for b in self._blocks if (b + 1 + _KEEP_S) * MEDIA_RATE < self._floor]:
            del self._blocks[block]
        return samples

    def read_model(self, start_16k: int, stop_16k: int) -> np.ndarray:
        """int16 at 16 kHz on the same time base: sample n is centred on 48 kHz sample 3n. Does not move the floor."""
        reach = _TAPS // 2
        around = self._load(start_16k * 3 - reach, (stop_16k - 1) * 3 + reach + 1).astype(np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(around, _TAPS)[::3]
        filtered: np.ndarray = np.rint(windows @ _FILTER).clip(-32768, 32767).astype(np.int16)
        return filtered

    def clear_after(self, index: int) -> None:
        """Forget everything from `index` on; the sound fades out over its first 5 ms."""
        end = self._known[-1][1] if self._known else 0
        if end <= index:
            return
        self._fade(index, index + FADE_SAMPLES, _FADE_OUT)
        tail = index + FADE_SAMPLES
        for block in [b for b in self._blocks if (b + 1) * MEDIA_RATE > tail]:
            self._blocks[block][max(tail - block * MEDIA_RATE, 0) :] = 0
        self._known = [[start, min(stop, tail)] for start, stop in self._known if start < tail]

    def _store(self, start: int, samples: np.ndarray) -> None:
        done = 0
        while done < len(samples):
            block, offset = divmod(start + done, MEDIA_RATE)
            if block not in self._blocks:
                self._blocks[block] = np.zeros(MEDIA_RATE, dtype=np.int16)
            count = min(MEDIA_RATE - offset, len(samples) - done)
            self._blocks[block][offset : offset + count] = samples[done : done + count]
            done += count

    def _load(self, start: int, stop: int) -> np.ndarray:
        out = np.zeros(stop - start, dtype=np.int16)
        for block in range(start // MEDIA_RATE, (stop - 1) // MEDIA_RATE + 1):
            data = self._blocks.get(block)
            if data is not None:
                first, last = max(start, block * MEDIA_RATE), min(stop, (block + 1) * MEDIA_RATE)
                out[first - start : last - start] = data[first - block * MEDIA_RATE : last - block * MEDIA_RATE]
        return out

    def _fade(self, start: int, stop: int, gain: np.ndarray) -> None:
        first = max(start, self._floor)
        if first < stop:
            faded = self._load(first, stop).astype(np.float32) * gain[first - start :]
            self._store(first, faded.astype(np.int16))

    def _mark(self, start: int, stop: int) -> None:
        kept: list[list[int]] = []
        for known in self._known:
            if known[1] < start or known[0] > stop:
                kept.append(known)
            else:
                start, stop = min(start, known[0]), max(stop, known[1])
        kept.append([start, stop])
        self._known = sorted(kept)
