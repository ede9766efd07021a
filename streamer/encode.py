"""Video and sound encoders that give packets ready for RTP, one set a peer.

H.264 is constrained baseline in CBR mode opened at its ceiling: only so does assigning the bitrate take effect at once and without
a keyframe. VP8 has no such way through FFmpeg: it is opened anew, rarely. A tight VBV keeps keyframes small, because aiortc has no
pacer and a burst of packets breaks the sound at the receiver. One thread each: more only add slices and NAL units.
"""

from __future__ import annotations

import functools
import os
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any, Protocol

import av
import numpy as np
from av.video.frame import PictureType

from model.geometry import FRAME_SAMPLES_48K, MEDIA_RATE, Geometry
from streamer.media import VIDEO_CLOCK, VIDEO_TICKS

MAX_KBPS, MIN_KBPS = 1500, 150
OPUS_KBPS = 64
OPUS_SAMPLES = MEDIA_RATE // 50
_BUFFER_MS = 200
_VIDEO_BASE = Fraction(1, VIDEO_CLOCK)
_AUDIO_BASE = Fraction(1, MEDIA_RATE)
_REOPEN_S, _REOPEN_FACTOR = 5.0, 1.25


@functools.cache
def encoder_executor() -> ThreadPoolExecutor:
    """Threads of the video encoders, shared by all peers; libx264 and libvpx release the GIL."""
    return ThreadPoolExecutor(max_workers=max(1, (os.cpu_count() or 2) - 1), thread_name_prefix="video-encoder")


class VideoEncoder(Protocol):
    def encode(self, frame: np.ndarray, index: int, keyframe: bool) -> list[av.Packet[Any]]:
        """I420 uint8 [h * 3 // 2, w] of unit `index`; called from one executor thread at a time."""
        ...

    def set_kbps(self, kbps: int) -> None: ...


def _video_frame(frame: np.ndarray, index: int, keyframe: bool) -> av.VideoFrame:
    picture = av.VideoFrame.from_ndarray(frame, format="yuv420p")
    picture.pts, picture.time_base = index * VIDEO_TICKS, _VIDEO_BASE
    picture.pict_type = PictureType.I if keyframe else PictureType.NONE
    return picture


def _open(name: str, geometry: Geometry, kbps: int, options: dict[str, str]) -> av.VideoCodecContext:
    codec = av.CodecContext.create(name, "w")
    assert isinstance(codec, av.VideoCodecContext)
    codec.width, codec.height, codec.pix_fmt = geometry.width, geometry.height, "yuv420p"
    codec.framerate, codec.time_base = Fraction(geometry.fps), _VIDEO_BASE
    codec.bit_rate = kbps * 1000
    codec.thread_count = 1
    codec.gop_size = 1_000_000  # keyframes on request only
    codec.options = options | {"maxrate": f"{kbps}k", "bufsize": f"{kbps * _BUFFER_MS // 1000}k"}
    codec.open()
    return codec


class H264Encoder:
    """libx264, constrained baseline."""

    def __init__(self, geometry: Geometry, kbps: int = MAX_KBPS) -> None:
        options = {"preset": "veryfast", "tune": "zerolatency", "profile": "baseline", "level": "3.1", "forced-idr": "1"}
        self._codec = _open("libx264", geometry, kbps, options)

    def encode(self, frame: np.ndarray, index: int, keyframe: bool) -> list[av.Packet[Any]]:
        return self._codec.encode(_video_frame(frame, index, keyframe))

    def set_kbps(self, kbps: int) -> None:
        self._codec.bit_rate = min(max(kbps, MIN_KBPS), MAX_KBPS) * 1000


class Vp8Encoder:
    """libvpx. The denoiser is off: it only hurts generated pictures."""

    def __init__(self, geometry: Geometry, kbps: int = 800) -> None:
        self._geometry = geometry
        self._wanted = self._kbps = kbps
        self._opened_s = time.monotonic()
        self._codec = self._reopen()

    def _reopen(self) -> av.VideoCodecContext:
        options = {"deadline": "realtime", "cpu-used": "-8", "lag-in-frames": "0", "noise-sensitivity": "0", "error-resilient": "1"}
        return _open("libvpx", self._geometry, self._kbps, options)

    def encode(self, frame: np.ndarray, index: int, keyframe: bool) -> list[av.Packet[Any]]:
        ratio = max(self._wanted / self._kbps, self._kbps / self._wanted)
        if ratio > _REOPEN_FACTOR and time.monotonic() - self._opened_s > _REOPEN_S:
            self._kbps, self._opened_s = self._wanted, time.monotonic()
            self._codec = self._reopen()
        return self._codec.encode(_video_frame(frame, index, keyframe))

    def set_kbps(self, kbps: int) -> None:
        self._wanted = min(max(kbps, MIN_KBPS), MAX_KBPS)


class OpusEncoder:
    """48 kHz mono, 20 ms packets, in-band error correction. 0.2 ms a unit: runs on the event loop."""

    def __init__(self) -> None:
        codec = av.CodecContext.create("libopus", "w")
        assert isinstance(codec, av.AudioCodecContext)
        codec.sample_rate, codec.format, codec.layout = MEDIA_RATE, "s16", "mono"
        codec.time_base = _AUDIO_BASE
        codec.bit_rate = OPUS_KBPS * 1000
        codec.options = {"application": "voip", "frame_duration": "20", "fec": "1", "packet_loss": "5"}
        codec.open()
        self._codec = codec

    def encode(self, samples: np.ndarray, index: int) -> list[av.Packet[Any]]:
        """int16 [1920] of unit `index` to two packets."""
        packets: list[av.Packet[Any]] = []
        for part in range(FRAME_SAMPLES_48K // OPUS_SAMPLES):
            pts = index * FRAME_SAMPLES_48K + part * OPUS_SAMPLES
            piece = np.ascontiguousarray(samples[None, part * OPUS_SAMPLES : (part + 1) * OPUS_SAMPLES])
            frame = av.AudioFrame.from_ndarray(piece, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = MEDIA_RATE, pts, _AUDIO_BASE
            for packet in self._codec.encode(frame):
                # The encoder shifts its first timestamps by its own delay; on the wire they follow from the unit alone.
                packet.pts = packet.dts = pts
                packet.time_base = _AUDIO_BASE
                packets.append(packet)
        return packets
