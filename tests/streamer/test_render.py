"""`livemimic render` from the command line: a playable file of the right length, and an error that helps for everything else."""

from __future__ import annotations

import wave
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from streamer.cli import main


def write_wav(path: Path, seconds: float, rate: int = 16_000, channels: int = 1) -> Path:
    t = np.arange(int(seconds * rate)) / rate
    sound = (8000 * np.sin(2 * np.pi * 180 * t) * (np.sin(2 * np.pi * 2 * t) > 0)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, 2, rate, 0, "NONE", "NONE"))
        file.writeframes(np.repeat(sound, channels).tobytes())
    return path


def read(path: Path) -> tuple[int, float, list[np.ndarray]]:
    with av.open(str(path)) as container:
        frames = [f.to_ndarray(format="gray") for f in container.decode(video=0)]
    with av.open(str(path)) as container:
        sound_s = sum(f.samples for f in container.decode(audio=0)) / 48_000
    return len(frames), sound_s, frames


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (44_100, 2)])
def test_any_rate_and_channels_become_a_film_of_that_length(tmp_path: Path, rate: int, channels: int) -> None:
    sound = write_wav(tmp_path / "a.wav", 1.3, rate, channels)
    out = tmp_path / "o.mp4"
    assert main(["render", "--audio", str(sound), "--out", str(out), "--device", "cpu"]) == 0
    count, sound_s, _ = read(out)
    assert count == 33
    assert sound_s == pytest.approx(1.3, abs=0.06)


def test_a_seed_fixes_the_film(tmp_path: Path) -> None:
    sound = write_wav(tmp_path / "a.wav", 0.7)
    for name in ("a.mp4", "b.mp4"):
        assert main(["render", "--audio", str(sound), "--out", str(tmp_path / name), "--seed", "7"]) == 0
    first, second = read(tmp_path / "a.mp4")[2], read(tmp_path / "b.mp4")[2]
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def bad_inputs(folder: Path) -> dict[str, list[str]]:
    good = write_wav(folder / "good.wav", 0.3)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("not a sound")
    (folder / "cut.wav").write_bytes(good.read_bytes()[:30])
    Image.new("RGB", (1, 1)).save(folder / "tiny.png")
    Image.new("RGB", (400, 400), (90, 120, 90)).save(folder / "wall.png")
    (folder / "wall.txt").write_text("not a video")
    with av.open(str(folder / "silent.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), dtype=np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    audio, picture = ["--audio", str(good)], ["--audio", str(good), "--portrait"]
    return {
        "empty": ["--audio", str(folder / "empty.wav")], "cannot be decoded": ["--audio", str(folder / "text.wav")],
        "": ["--audio", str(folder / "cut.wav")], "no audio stream": ["--audio", str(folder / "silent.mp4")],
        "does not exist": ["--audio", str(folder / "none.wav")], "neither a built-in": [*picture, "nobody"],
        "1x1": [*picture, str(folder / "tiny.png")], "face": [*picture, str(folder / "wall.png")],
        "--prompt is needed": [*audio, "--task", "t2v"], "--video belongs to lipsync": [*audio, "--video", str(folder / "silent.mp4")],
        "--seconds belongs to i2v and flf2v and t2v": [*audio, "--seconds", "3"], "--audio is needed": ["--portrait", "clara"],
        "--audio belongs to": [*audio, "--seconds", "1", "--task", "i2v"], "--seconds must be": ["--task", "i2v", "--seconds", "0"],
        "either --audio or --seconds": ["--task", "t2v", "--prompt", "a man"], "--last is needed": [*picture, "clara", "--task", "flf2v"],
        "does not say who": [*audio, "--task", "t2v", "--prompt", "a castle"],
        "is all of this": [*audio, "--task", "t2v", "--prompt", "a child"],
        "cannot be decoded as a video": [*audio, "--task", "lipsync", "--video", str(folder / "wall.txt")],
        "holds no pictures": [*audio, "--task", "lipsync", "--video", str(good)],
        "shows no face": [*audio, "--task", "lipsync", "--video", str(folder / "silent.mp4")],
    }  # fmt: skip


def test_what_is_wrong_is_said_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "o.mp4"
    for said, arguments in bad_inputs(tmp_path).items():
        assert main(["render", "--out", str(out), *arguments]) == 1, said
        message = capsys.readouterr().err
        assert said in message and len(message.splitlines()) >= 2, message
        assert not out.exists()


def test_a_bad_target_is_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound = write_wav(tmp_path / "a.wav", 0.3)
    assert main(["render", "--audio", str(sound), "--out", str(tmp_path / "no" / "o.mp4")]) == 1
    assert "does not exist" in capsys.readouterr().err
    assert main(["render", "--audio", str(sound), "--out", str(tmp_path / "o.txt")]) == 1
    assert ".mp4" in capsys.readouterr().err
