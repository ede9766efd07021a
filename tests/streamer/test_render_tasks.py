"""The other tasks of `livemimic render`, from real files to real files."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from model.geometry import FRAME_SAMPLES_48K
from model.paste import mouth_opacity, planes
from model.pipeline import AvatarPipeline
from model.portraits import builtin_portraits
from streamer.cli import main
from streamer.lipsync import FramedClip, lipsync_frames, spoken_from
from streamer.video_file import VideoClip, read_video

VOWEL_HZ = 140


def voice(seconds: float) -> np.ndarray:
    """A buzzing vowel on and off three times a second: int16 at 48 kHz."""
    t = np.arange(int(seconds * 48_000)) / 48_000
    harmonics = [VOWEL_HZ * k for k in range(1, 24)]
    tones = sum(np.exp(-(((h - formant) / 150) ** 2)) * np.sin(2 * np.pi * h * t) for h in harmonics for formant in (700, 1200))
    return (12_000 * tones / np.abs(tones).max() * (np.sin(2 * np.pi * 3 * t) > 0)).astype(np.int16)


def write_film(path: Path, rate: int, num_frames: int, size: tuple[int, int] = (400, 300)) -> Path:
    """A presenter who drifts to the right, a person's picture in a larger one; no sound."""
    face = Image.open(builtin_portraits()["maya"]).convert("RGB")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for index in range(num_frames):
            whole = Image.new("RGB", size, (110, 120, 140))
            whole.paste(face, (60 + 25 * index // rate, 20))
            container.mux(stream.encode(av.VideoFrame.from_image(whole)))
        container.mux(stream.encode(None))
    return path


def streams(path: Path) -> tuple[int, int, tuple[int, int]]:
    """Number of frames, of sound streams, and the size."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        return sum(1 for _ in container.decode(video)), len(container.streams.audio), (video.width, video.height)


def test_a_picture_moves_without_a_voice_for_as_long_as_asked(tmp_path: Path) -> None:
    out = tmp_path / "o.mp4"
    assert main(["render", "--task", "i2v", "--portrait", "clara", "--prompt", "smiling", "--seconds", "0.44", "--out", str(out)]) == 0
    assert streams(out) == (11, 0, (256, 256))


def test_a_presenter_is_cast_and_speaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        sound = container.add_stream("pcm_s16le", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(voice(0.3)[None], format="s16", layout="mono")
        frame.sample_rate = 48_000
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    prompt = ["--prompt", "An old man with a beard nods."]
    assert main(["render", "--task", "t2v", *prompt, "--audio", str(tmp_path / "a.wav"), "--out", str(tmp_path / "o.mp4")]) == 0
    assert "presenter: henry" in capsys.readouterr().out
    assert streams(tmp_path / "o.mp4") == (8, 1, (256, 256))


def test_from_a_first_to_a_last_picture(tmp_path: Path) -> None:
    first = Image.open(builtin_portraits()["clara"]).convert("RGB")
    first.transform(first.size, Image.Transform.AFFINE, (1, 0.06, -8, 0, 1, 0), Image.Resampling.BICUBIC).save(tmp_path / "last.png")
    out = tmp_path / "o.mp4"
    pictures = ["--portrait", "clara", "--last", str(tmp_path / "last.png")]
    assert main(["render", "--task", "flf2v", *pictures, "--seconds", "0.4", "--out", str(out)]) == 0
    assert streams(out) == (10, 0, (256, 256))


@pytest.mark.parametrize(("rate", "num_frames", "expected"), [(25, 10, 10), (50, 20, 10), (30, 30, 25), (10, 4, 10)])
def test_any_rate_becomes_25_frames_a_second(tmp_path: Path, rate: int, num_frames: int, expected: int) -> None:
    assert len(read_video(write_film(tmp_path / "v.mp4", rate, num_frames), 1000).frames) == expected
    assert len(read_video(tmp_path / "v.mp4", 7).frames) == 7


def test_frames_are_the_files_own_bits(tmp_path: Path) -> None:
    path = write_film(tmp_path / "v.mp4", 25, 6)
    with av.open(str(path)) as container:
        decoded = [frame.to_ndarray() for frame in container.decode(video=0)]
    assert np.array_equal(read_video(path, 1000).frames, np.stack(decoded))


def test_a_short_clip_goes_there_and_back() -> None:
    clip = VideoClip(np.zeros((4, 6, 4), dtype=np.uint8), colour=(2, 0, 2, 2))  # type: ignore[arg-type]
    assert [clip.there_and_back(i) for i in range(10)] == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3]
    assert VideoClip(clip.frames[:1], clip.colour).there_and_back(5) == 0


def test_lipsync_changes_the_mouth_and_nothing_else(tmp_path: Path) -> None:
    """Every sample outside the mouth region is the decoded input's, also where the clip runs back because the voice is longer."""
    torch.set_num_threads(1)
    framed = FramedClip(read_video(write_film(tmp_path / "v.mp4", 25, 9), 1000))
    sound = voice(14 / 25)
    frames = list(lipsync_frames(AvatarPipeline.load(device="cpu"), framed, sound, seed=0))
    assert len(frames) == -(-len(sound) // FRAME_SAMPLES_48K) == 14
    moved = []
    for shown, frame in enumerate(frames):
        before = framed.clip.frames[framed.clip.there_and_back(shown)]
        framing = framed.framing(shown)
        assert framing.size == pytest.approx(256, rel=0.15)
        changed = planes(frame)[0] != planes(np.asarray(before))[0]
        y, x = np.nonzero(changed)
        rows, columns = ((axis + 0.5 - start) * 256 / framing.size for axis, start in ((y, framing.top), (x, framing.left)))
        allowed = np.pad(mouth_opacity() > 0, 2)
        near = np.stack([np.roll(allowed, (dy, dx), (0, 1)) for dy in (-2, 0, 2) for dx in (-2, 0, 2)]).any(axis=0)
        assert near[np.floor(rows).astype(int) + 2, np.floor(columns).astype(int) + 2].all()
        assert 0.01 < changed.mean() < 0.09
        moved.append(np.abs(frame[:300].astype(int) - before[:300])[changed].mean())
    assert max(moved) > 2 * min(moved), "the mouth does not follow the voice"


def test_lipsync_from_the_command_line(tmp_path: Path) -> None:
    video = write_film(tmp_path / "v.mp4", 30, 12)
    with av.open(str(tmp_path / "a.flac"), "w") as container:
        sound = container.add_stream("flac", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(voice(0.24)[None], format="s16", layout="mono")
        frame.sample_rate = 48_000
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    out = tmp_path / "o.mp4"
    assert main(["render", "--task", "lipsync", "--video", str(video), "--audio", str(tmp_path / "a.flac"), "--out", str(out)]) == 0
    assert streams(out) == (6, 1, (400, 300))


def test_a_clip_speaks_from_a_closed_mouth_and_a_usual_pose() -> None:
    """An open mouth costs more than a turned head, a turned head more than lips hardly parted."""
    poses = np.zeros((5, 10), dtype=np.float32)
    poses[1, 0] = 1.5
    assert spoken_from(np.array([0.2, 0.0, 3.0, 8.0, 0.4]), poses) == 0
    assert spoken_from(np.array([5.0, 0.0, 3.0, 8.0, 4.0]), poses) == 1
