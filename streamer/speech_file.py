"""Decodes an audio file of any format into the session's 48 kHz mono, within limits.

Runs in a thread of its own executor, never on the event loop. The demuxers are a fixed list: FFmpeg also knows formats
that name other files or addresses to open (playlists, concat scripts), and an upload must not reach those.
"""

from __future__ import annotations

from typing import BinaryIO

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler

from model.geometry import MEDIA_RATE
from streamer.errors import BadInput

MAX_SPEECH_S = 600
MAX_SPEECH_BYTES = 50 * 1024 * 1024
_FORMATS = "wav,w64,mp3,flac,ogg,matroska,webm,mov,mp4,m4a,aac,aiff,au,amr,caf,asf,avi,mpegts,ac3,eac3,wv,tta,ape"
_MISSING_TOLERANCE_S = 0.5
_WAV_HEAD_BYTES = 4096


def decode_speech(file: BinaryIO, max_s: float = MAX_SPEECH_S) -> np.ndarray:
    """int16 [samples] at 48 kHz, at most `max_s` seconds. Raises BadInput with one code per kind of trouble."""
    file.seek(0, 2)
    if file.tell() == 0:
        raise BadInput("speech_empty", "the file is empty", "send an audio file in the form field 'file'")
    if _is_cut_off(file):
        raise _truncated("declares more audio than it holds")
    file.seek(0)
    try:
        with av.open(file, "r", options={"format_whitelist": _FORMATS}, metadata_errors="ignore") as container:
            return _decode(container, max_s)
    except (av.FFmpegError, ValueError) as error:
        raise BadInput(
            "speech_not_audio",
            f"the file cannot be decoded as audio ({error.strerror if isinstance(error, av.FFmpegError) else error})",
            "send a whole WAV, MP3, FLAC, Ogg, M4A or WebM file",
        ) from error


def _decode(container: av.container.InputContainer, max_s: float) -> np.ndarray:
    if not container.streams.audio:
        raise BadInput("speech_no_audio", "the file has no audio stream", "send a file with sound in it")
    stream = container.streams.audio[0]
    declared_s = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
    if declared_s > max_s:
        raise _too_long(declared_s, max_s)
    resampler = AudioResampler(format="s16", layout="mono", rate=MEDIA_RATE)
    pieces: list[np.ndarray] = []
    num_samples = 0
    try:
        for frame in container.decode(stream):
            num_samples += _collect(resampler.resample(frame), pieces)
            # The declared duration may lie; the limit bounds memory whatever the header says.
            if num_samples > max_s * MEDIA_RATE:
                raise _too_long(num_samples / MEDIA_RATE, max_s)
    except av.FFmpegError as error:
        if num_samples == 0:
            raise
        raise _truncated(f"cannot be decoded beyond {num_samples / MEDIA_RATE:.1f} s ({error.strerror})") from error
    num_samples += _collect(resampler.resample(None), pieces)
    decoded_s = num_samples / MEDIA_RATE
    if num_samples == 0:
        raise BadInput("speech_empty", "the file has an audio stream but no sound in it", "record it again")
    if declared_s - decoded_s > max(_MISSING_TOLERANCE_S, 0.05 * declared_s):
        raise _truncated(f"declares {declared_s:.1f} s of audio but holds {decoded_s:.1f} s")
    return np.concatenate(pieces)


def _collect(frames: list[AudioFrame], pieces: list[np.ndarray]) -> int:
    samples = [frame.to_ndarray()[0] for frame in frames]
    pieces.extend(samples)
    return sum(len(piece) for piece in samples)


def _is_cut_off(file: BinaryIO) -> bool:
    """Whether a WAV's data chunk ends behind the file; FFmpeg silently takes what is there."""
    num_bytes = file.seek(0, 2)
    file.seek(0)
    head = file.read(_WAV_HEAD_BYTES)
    at = head.find(b"data", 12)
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE" or at < 0:
        return False
    declared = int.from_bytes(head[at + 4 : at + 8], "little")
    # Recorders that stream write a size they do not know as zero or as the largest number.
    return declared < 0x7FFFFF00 and at + 8 + declared > num_bytes


def _truncated(what: str) -> BadInput:
    return BadInput("speech_truncated", f"the file {what}", "the upload or the recording was cut off: send it again")


def _too_long(seconds: float, max_s: float) -> BadInput:
    return BadInput(
        "speech_too_long",
        f"the file lasts {seconds:.0f} s, the limit is {max_s:.0f} s",
        "split it into shorter files",
    )
