"""The finished file of `livemimic render`: what is checked before any work, the voice that goes in, the film that comes out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from model.geometry import MEDIA_RATE, Geometry
from streamer.errors import BadInput
from streamer.speech_file import decode_speech

MAX_S = 6 * 3600.0
_SUFFIXES = (".mp4", ".mkv", ".mov")


class Colour(NamedTuple):
    """What a file says of its colours (FFmpeg's numbers; 2 and, for the range, 0 say nothing): how planes are to be read."""

    space: int = 2
    range: int = 0
    primaries: int = 2
    transfer: int = 2


UNTAGGED = Colour()


class Film(NamedTuple):
    """What is written: I420 frames as they come, their size and how their numbers mean colours."""

    frames: Iterable[np.ndarray]
    geometry: Geometry
    colour: Colour = UNTAGGED


def check_target(out: Path) -> None:
    if out.suffix.lower() not in _SUFFIXES:
        raise BadInput("bad_suffix", f"{out} needs one of the endings {', '.join(_SUFFIXES)}.", "For example --out talk.mp4.")
    if not out.parent.is_dir():
        raise BadInput("no_such_folder", f"The folder {out.parent} does not exist.", "Create it, or choose another --out.")


def read_voice(path: Path) -> np.ndarray:
    """int16, mono, 48 kHz."""
    if not path.is_file():
        raise BadInput("no_such_file", f"{path} does not exist.", "Check the path of --audio.")
    with path.open("rb") as file:
        return decode_speech(file, max_s=MAX_S)


def make_film(out: Path, start: Callable[[], Film], sound: np.ndarray, *, silent: bool = False) -> None:
    """Writes what `start` begins, as long as `sound` and with it unless `silent`; says how long that took."""
    began = time.perf_counter()
    film = start()
    write_video(out, film, None if silent else sound)
    seconds, spent = len(sound) / MEDIA_RATE, time.perf_counter() - began
    print(f"{out}: {seconds:.1f} s of video in {spent:.1f} s ({spent / seconds:.2f} s a second)")


def write_video(out: Path, film: Film, sound: np.ndarray | None) -> None:
    """H.264, and AAC for int16 sound at 48 kHz. Written beside `out` and renamed at the end, so that a stop leaves no broken file."""
    geometry, colour = film.geometry, film.colour
    spacing = MEDIA_RATE // geometry.fps
    partial = out.with_name(f".{out.stem}.partial{out.suffix}")
    try:
        with av.open(str(partial), "w") as container:
            video = container.add_stream("libx264", rate=geometry.fps, options={"crf": "16", "preset": "veryfast"})
            video.width, video.height, video.pix_fmt = geometry.width, geometry.height, "yuv420p"
            video.codec_context.time_base = Fraction(1, geometry.fps)
            video.codec_context.thread_count = 1
            video.codec_context.colorspace, video.codec_context.color_range = colour.space, colour.range
            video.codec_context.color_primaries, video.codec_context.color_trc = colour.primaries, colour.transfer
            voice = None
            if sound is not None:
                voice = container.add_stream("aac", rate=MEDIA_RATE, layout="mono")
                voice.bit_rate = 128_000
            for index, picture in enumerate(film.frames):
                frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
                frame.pts = index
                container.mux(video.encode(frame))
                if voice is not None and sound is not None:
                    container.mux(voice.encode(_audio_frame(sound[index * spacing : (index + 1) * spacing], index * spacing)))
            for stream in (video, voice):
                if stream is not None:
                    container.mux(stream.encode(None))
        partial.rename(out)
    finally:
        partial.unlink(missing_ok=True)


def _audio_frame(samples: np.ndarray, pts: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = MEDIA_RATE, pts, Fraction(1, MEDIA_RATE)
    return frame
