"""Trace of one session for the benchmarks: what was sent when, and the input time line as sound.

Units are written in order, so their audio laid end to end *is* the input time line. The sound goes to disk as it comes
(an hour would be 350 MB in memory), the JSON at the end.
"""

from __future__ import annotations

import json
import time
import wave
from pathlib import Path

import numpy as np

from model.geometry import MEDIA_RATE


class Trace:
    """Writes SESSION.json and SESSION.wav into a folder."""

    def __init__(self, folder: Path, session_id: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{session_id}.json"
        self._units: list[tuple[int, int, bool, float]] = []
        self._interrupts: list[dict[str, float | int | str]] = []
        # Adding this to a time of the loop's clock gives seconds since 1970.
        self._epoch_offset_s = time.time() - time.monotonic()
        self._wave = wave.open(str(folder / f"{session_id}.wav"), "wb")  # noqa: SIM115 - lives as long as the session
        self._wave.setparams((1, 2, MEDIA_RATE, 0, "NONE", "NONE"))

    def unit(self, index: int, epoch: int, repeated: bool, sent_s: float, audio: np.ndarray) -> None:
        self._units.append((index, epoch, repeated, sent_s))
        self._wave.writeframesraw(audio.astype("<i2").tobytes())

    def interrupt(self, epoch: int, played_frame: int, called_s: float, origin: str) -> None:
        self._interrupts.append({"epoch": epoch, "played_frame": played_frame, "called_loop_s": called_s, "origin": origin})

    def close(self, facts: dict[str, object]) -> None:
        self._wave.close()
        units = [
            {
                "index": index,
                "epoch": epoch,
                "repeated": repeated,
                "sent_loop_s": sent_s,
                "sent_epoch_s": sent_s + self._epoch_offset_s,
            }
            for index, epoch, repeated, sent_s in self._units
        ]
        self._path.write_text(json.dumps({**facts, "units": units, "interrupts": self._interrupts}), encoding="utf-8")
