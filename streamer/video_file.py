"""A video file as I420 frames at 25 frames a second, any of them at hand: kept unpacked in a temporary file that nobody else sees."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import av
import numpy as np
from tqdm import tqdm

from model.geometry import FPS
from model.paste import planes
from streamer.errors import BadInput
from streamer.film import Colour

_MAX_SIDE = 4096


@dataclass(frozen=True, slots=True)
class VideoClip:
    """frames uint8 I420 [N, H*3//2, W] as decoded, upright; their numbers mean the colours that `colour` says."""

    frames: np.ndarray
    colour: Colour

    @property
    def width(self) -> int:
        return int(self.frames.shape[2])

    @property
    def height(self) -> int:
        return int(self.frames.shape[1]) * 2 // 3

    def there_and_back(self, index: int) -> int:
        """The frame shown at `index` of an endless loop that turns round at both ends, so that nothing jumps."""
        period = max(2 * (len(self.frames) - 1), 1)
        place = index % period
        return min(place, period - place)


def read_video(path: Path, max_frames: int) -> VideoClip:
    """The first `max_frames` frames at 25 a second: at each instant the frame that the file shows then. Raises BadInput."""
    if not path.is_file():
        raise BadInput("no_such_file", f"{path} does not exist.", "Check the path of --video.")
    with tempfile.TemporaryFile() as spool:
        try:
            with av.open(str(path)) as container:
                shape, colour, count = _unpack(container, spool, max_frames)
        except (av.FFmpegError, ValueError) as error:
            hint = "Use a whole MP4, MOV, MKV or WebM file."
            raise BadInput("not_a_video", f"{path} cannot be decoded as a video ({error}).", hint) from error
        if count == 0:
            raise BadInput("video_empty", f"{path} holds no pictures.", "Use a video file, not a sound file.")
        spool.flush()
        # The mapping outlives the file's name and handle; the system frees both when it is gone.
        return VideoClip(np.memmap(spool, np.uint8, mode="r", shape=(count, *shape)), colour)


def _unpack(container: av.container.InputContainer, spool: IO[bytes], max_frames: int) -> tuple[tuple[int, int], Colour, int]:
    if not container.streams.video:
        return (0, 0), Colour(), 0
    shape, colour, count = (0, 0), Colour(), 0
    with tqdm(desc="read video", unit="frame", disable=None) as progress:
        for picture in _at_25(container, max_frames):
            if count == 0:
                shape, colour = _upright(picture).shape, _colour_of(picture)
            unpacked = _upright(picture)
            if unpacked.shape != shape:
                raise ValueError("its pictures change their size")
            spool.write(unpacked.tobytes())
            count += 1
            progress.update()
    return shape, colour, count


def _at_25(container: av.container.InputContainer, max_frames: int) -> Iterator[av.VideoFrame]:
    stream = container.streams.video[0]
    shown: av.VideoFrame | None = None
    start_s, count, spacing_s = 0.0, 0, 1 / FPS
    for frame in container.decode(stream):
        time_s = frame.time if frame.time is not None else 0.0
        if shown is None:
            start_s = time_s
        else:
            while count < max_frames and count / FPS < time_s - start_s - 1e-3:
                yield shown
                count += 1
            spacing_s = time_s - (shown.time or 0.0)
        if count >= max_frames:
            return
        shown = frame
    if shown is not None:
        end_s = (shown.time or 0.0) - start_s + spacing_s
        while count < max_frames and count / FPS < end_s - 1e-3:
            yield shown
            count += 1


def _upright(frame: av.VideoFrame) -> np.ndarray:
    if max(frame.width, frame.height) > _MAX_SIDE:
        raise ValueError(f"{frame.width}x{frame.height} is larger than {_MAX_SIDE}")
    odd = frame.width % 2 or frame.height % 2
    if odd or frame.format.name not in ("yuv420p", "yuvj420p"):
        frame = frame.reformat(width=frame.width & ~1, height=frame.height & ~1, format="yuv420p")
    picture: np.ndarray = frame.to_ndarray()
    if frame.rotation % 360 == 0:
        return picture
    turned = [np.rot90(plane, frame.rotation // 90) for plane in planes(picture)]
    upright: np.ndarray = np.concatenate([plane.reshape(-1) for plane in turned]).reshape(-1, turned[0].shape[1])
    return upright


def _colour_of(frame: av.VideoFrame) -> Colour:
    return Colour(*(int(v) for v in (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc)))
