"""The finished file of `livemimic render`: what is checked before any work, the voice that goes in, the film that comes out."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from model.geometry import MEDIA_RATE, Geometry
from streamer.errors import BadInput
from streamer.speech_file import decode_speech

_MAX_S = 6 * 3600.0
_SUFFIXES = (".mp4", ".mkv", ".mov")


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
        return decode_speech(file, max_s=_MAX_S)


def to_model_rate(sound: np.ndarray) -> np.ndarray:
    """48 kHz to 16 kHz, the same filter the live path uses."""
    from streamer.timeline import AudioTimeline

    timeline = AudioTimeline()
    timeline.write(0, sound)
    return timeline.read_model(0, -(-len(sound) // 3))


def write_video(out: Path, frames: Iterator[np.ndarray], sound: np.ndarray, geometry: Geometry) -> None:
    """H.264 and AAC. Written beside `out` and renamed at the end, so that a stop leaves no broken file."""
    partial = out.with_name(f".{out.stem}.partial{out.suffix}")
    try:
        with av.open(str(partial), "w") as container:
            video = container.add_stream("libx264", rate=geometry.fps, options={"crf": "16", "preset": "veryfast"})
            video.width, video.height, video.pix_fmt = geometry.width, geometry.height, "yuv420p"
            video.codec_context.time_base = Fraction(1, geometry.fps)
            video.codec_context.thread_count = 1
            voice = container.add_stream("aac", rate=MEDIA_RATE, layout="mono")
            voice.bit_rate = 128_000
            spacing = MEDIA_RATE // geometry.fps
            for index, picture in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
                frame.pts = index
                container.mux(video.encode(frame))
                container.mux(voice.encode(_audio_frame(sound[index * spacing : (index + 1) * spacing], index * spacing)))
            container.mux(video.encode(None))
            container.mux(voice.encode(None))
        partial.rename(out)
    finally:
        partial.unlink(missing_ok=True)


def _audio_frame(samples: np.ndarray, pts: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = MEDIA_RATE, pts, Fraction(1, MEDIA_RATE)
    return frame
