"""`livemimic render` with a miniature folder of published weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.echomimic.config import VARIANTS, Variant
from model.echomimic.settings import DEFAULTS
from model.errors import ConfigError
from model.portraits import builtin_portraits
from streamer.cli import build_parser, main
from streamer.published_options import published_settings
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


def test_options_become_settings() -> None:
    """Each changes its own; what is not given is the variant's."""
    parser = build_parser()
    base = ["render", "--preset", "echomimic-v3-flash", "--audio", "a", "--out", "o.mp4"]
    assert published_settings(parser.parse_args(base)) == DEFAULTS["flash"]
    given = [
        "--size", "512", "--window", "49", "--text-guidance", "1", "--audio-guidance", "2", "--sampler", "dpmpp", "--teacache", "0.05",
        "--long-video", "pixel", "--phda", "--compat", "--steps", "12", "--seed", "5", "--negative-prompt", "blur",
    ]  # fmt: skip
    settings = published_settings(parser.parse_args(base + given))
    assert (settings.area, settings.window_frames, settings.sampler, settings.num_steps) == (512 * 512, 49, "dpmpp", 12)
    assert (settings.cache_threshold, settings.long_video, settings.compat, settings.seed) == (0.05, "pixel", True, 5)
    guidance = settings.guidance
    assert (guidance.text_scale, guidance.audio_scale, guidance.phda, settings.negative) == (1.0, 2.0, True, "blur")


def test_few_steps_leave_out_a_cache_that_nobody_asked_for() -> None:
    """One that was asked for is an error, as in the release."""
    base = ["render", "--preset", "echomimic-v3-flash", "--audio", "a", "--out", "o.mp4", "--steps", "4"]
    assert published_settings(build_parser().parse_args(base)).cache_threshold is None
    assert published_settings(build_parser().parse_args([*base[:-2], "--teacache", "0"])).cache_threshold is None
    with pytest.raises(ConfigError, match="4 steps are too few"):
        published_settings(build_parser().parse_args([*base, "--teacache", "0.1"]))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--preset", "presenter", "--teacache", "0.1"], "--teacache belongs to echomimic-v3-*"),
        (["--preset", "presenter", "--compat"], "--compat belongs to echomimic-v3-*"),
        (["--preset", "echomimic-v3-flash", "--long-video", "latent"], "preview with the flow sampler, got flash"),
        (["--preset", "echomimic-v3-flash", "--size", "20"], "--size must be 64 to 2048, got 20"),
        (["--preset", "echomimic-v3-flash", "--steps", "0"], "steps must be at least 1"),
        (["--preset", "echomimic-v3-flash", "--task", "lipsync"], "It has: talk, i2v, flf2v, t2v"),
        (["--preset", "echomimic-v3-flash", "--task", "t2v"], "--portrait belongs to talk and i2v and flf2v, not t2v"),
        (["--preset", "echomimic-v3-flash", "--task", "flf2v"], "--last is needed for task flf2v"),
        (["--preset", "echomimic-v3-flash", "--seconds", "3"], "--seconds belongs to preset presenter, not echomimic-v3-flash"),
        (["--preset", "echomimic-v3-flash", "--task", "flf2v", "--last", "nobody"], "neither a built-in presenter nor a file"),
        (["--preset", "echomimic-v3-mini"], "'echomimic-v3-mini' is not known"),
        (["--preset", "echomimic-v3-flash", "--task", "flf2v", "--last", "WIDE"], "The last picture is 400x100"),
        (["--preset", "echomimic-v3-flash", "--portrait", "nobody"], "neither a built-in presenter nor a file"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_the_weights_are_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], says: str
) -> None:
    """There are no weights here, and that is not what the message is about."""
    wide = tmp_path / "wide.png"
    Image.fromarray(np.zeros((100, 400, 3), np.uint8)).save(wide)
    given = [str(wide) if word == "WIDE" else word for word in more]
    assert main(arguments(tmp_path, "presenter", "--weights", str(tmp_path), *given)) == 1
    assert says in capsys.readouterr().err
    assert not (tmp_path / "o.mp4").exists()


def test_flash_films_a_picture_without_a_face_and_preview_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only preview needs to know where the voice acts; without a voice (i2v) it does not either."""
    pytest.importorskip("transformers", reason="needs the echomimic extra: pip install livemimic[echomimic]")
    monkeypatch.setenv("HOME", str(tmp_path))
    wall = tmp_path / "wall.png"
    Image.new("RGB", (96, 96), (90, 120, 90)).save(wall)
    for variant in VARIANTS:
        weights = write_miniature(tmp_path / variant, variant)
        more = ["--weights", str(weights), "--steps", "1", "--device", "cpu", "--portrait", str(wall)]
        assert main(arguments(tmp_path, f"echomimic-v3-{variant}", *more)) == (0 if variant == "flash" else 1)
        assert main(arguments(tmp_path, f"echomimic-v3-{variant}", *more, "--task", "i2v")) == 0
    assert "No face was found" in capsys.readouterr().err
