"""A finished file from I420 frames and, where there is any, their sound."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from model.geometry import FRAME_SAMPLES_48K, MEDIA_RATE, Geometry


class Colour(NamedTuple):
    """What a file says of its colours (FFmpeg's numbers; 2 and, for the range, 0 say nothing): how planes are to be read."""

    space: int = 2
    range: int = 0
    primaries: int = 2
    transfer: int = 2


UNTAGGED = Colour()


def write_video(
    out: Path, frames: Iterable[np.ndarray], sound: np.ndarray | None, geometry: Geometry, colour: Colour = UNTAGGED
) -> None:
    """H.264, and AAC for int16 sound at 48 kHz. Written beside `out` and renamed at the end, so that a stop leaves no broken file."""
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
            for index, picture in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
                frame.pts = index
                container.mux(video.encode(frame))
                if voice is not None and sound is not None:
                    start = index * FRAME_SAMPLES_48K
                    container.mux(voice.encode(_audio_frame(sound[start : start + FRAME_SAMPLES_48K], start)))
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
