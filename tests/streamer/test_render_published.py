"""`livemimic render` with a miniature folder of published weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.echomimic.config import Variant
from model.portraits import builtin_portraits
from streamer.cli import main
from tests.model.echomimic.miniature import write_miniature
from tests.streamer.test_render import read, write_wav

PORTRAIT = next(iter(builtin_portraits()))


def arguments(folder: Path, preset: str, *more: str) -> list[str]:
    sound = write_wav(folder / "a.wav", 0.5)
    return ["render", "--preset", preset, "--portrait", PORTRAIT, "--audio", str(sound), "--out", str(folder / "o.mp4"), *more]


@pytest.mark.parametrize("variant", ["preview", "flash"])
def test_a_published_folder_becomes_a_film(tmp_path: Path, variant: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    """All file names and formats are the published ones; only the widths are small."""
    pytest.importorskip("transformers", reason="needs the echomimic extra: pip install livemimic[echomimic]")
    monkeypatch.setenv("HOME", str(tmp_path))  # where embeddings are kept
    weights = write_miniature(tmp_path / "weights", variant)
    more = ("--weights", str(weights), "--steps", "2", "--device", "cpu", "--prompt", "a person talks")
    assert main(arguments(tmp_path, f"echomimic-v3-{variant}", *more)) == 0
    count, sound_s, frames = read(tmp_path / "o.mp4")
    assert count == 9 and frames[0].shape == (256, 256)
    assert sound_s == pytest.approx(9 / 25, abs=0.06)


def test_weights_must_be_named_and_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The message says what is missing and where it comes from."""
    assert main(arguments(tmp_path, "echomimic-v3-flash")) == 1
    assert "needs --weights DIR" in capsys.readouterr().err
    assert main(arguments(tmp_path, "echomimic-v3-flash", "--weights", str(tmp_path))) == 1
    error = capsys.readouterr().err
    assert "config.json is missing" in error and "https://" in error
