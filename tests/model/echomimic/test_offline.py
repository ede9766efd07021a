"""The whole path with a miniature weights folder: portrait, voice and prompt in, frames out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("transformers", reason="needs the echomimic extra: pip install livemimic[echomimic]")

from model.echomimic.config import Variant  # noqa: E402
from model.echomimic.folder import WeightsFolder  # noqa: E402
from model.echomimic.framing import FaceBox  # noqa: E402
from model.echomimic.offline import Job, OfflineRenderer  # noqa: E402
from model.echomimic.settings import DEFAULTS, Settings  # noqa: E402
from model.errors import ConfigError  # noqa: E402
from tests.model.echomimic.miniature import write_miniature  # noqa: E402

PORTRAIT = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8))
OTHER = Image.fromarray(np.random.default_rng(5).integers(0, 256, (70, 90, 3), dtype=np.uint8))


def renderer(path: Path, variant: Variant) -> OfflineRenderer:
    folder = WeightsFolder(write_miniature(path / "weights", variant), variant)
    return OfflineRenderer(folder, torch.device("cpu"), torch.float32, cache_folder=path / "cache")


def small(variant: Variant, **changes: object) -> Settings:
    return replace(DEFAULTS[variant], area=32 * 48, **{"cache_threshold": None, **changes})


def job(num_frames: int, **changes: object) -> Job:
    voice = np.random.default_rng(1).normal(0, 0.1, num_frames * 640).astype(np.float32)
    return Job(**{"portrait": PORTRAIT, "samples": voice, "prompt": "a person", **changes})


def test_preview_continues_in_windows(tmp_path: Path) -> None:
    """As long as the voice, but for frames that do not fill a latent frame; same seed, same bits."""
    own, settings = renderer(tmp_path, "preview"), small("preview", num_steps=2, window_frames=13)
    face = FaceBox(10, 60, 20, 70)
    video = own.render(job(30, face=face), settings)
    assert video.shape == (29, 32, 32, 3) and video.dtype == np.uint8
    assert np.array_equal(video, own.render(job(30, face=face), settings))
    assert not np.array_equal(video, own.render(job(30), replace(settings, seed=7)))


def test_latent_windows_cover_the_video_and_equal_one_window_where_it_fits(tmp_path: Path) -> None:
    """The released scheme gives nothing, or does not end, when a video is no longer than a window."""
    own = renderer(tmp_path, "preview")
    latent = small("preview", num_steps=2, window_frames=37, long_video="latent")
    steps: list[int] = []
    long = own.render(job(61), latent, lambda step, x: steps.append(step))
    assert long.shape[0] == 61 and steps == [0, 1]
    plain = replace(latent.guidance, negative_scale=1.0)
    one = own.render(job(17), small("preview", num_steps=2, window_frames=37, guidance=plain))
    assert np.array_equal(own.render(job(17), latent), one)


def test_flash_is_one_window_unless_told_to_go_on(tmp_path: Path) -> None:
    """Cut to the window by default; with pixel windows as long as the voice."""
    own, settings = renderer(tmp_path, "flash"), small("flash", num_steps=1, window_frames=13)
    assert len(own.render(job(30), settings)) == 13
    assert len(own.render(job(30), replace(settings, long_video="pixel"))) == 29


def test_compat_shares_flash_caches(tmp_path: Path) -> None:
    """The released TeaCache gives another picture than one cache a pass."""
    own, corrected = renderer(tmp_path, "flash"), small("flash", window_frames=9, cache_threshold=10.0)
    assert not np.array_equal(own.render(job(9), corrected), own.render(job(9), replace(corrected, compat=True)))


@pytest.mark.parametrize("changes", [{}, {"sampler": "dpmpp"}], ids=["negative text", "two shifts"])
def test_compat_changes_preview(tmp_path: Path, changes: dict[str, object]) -> None:
    """The growing negative text and the second shift; without either, nothing differs."""
    own, repaired = renderer(tmp_path, "preview"), small("preview", num_steps=4, window_frames=13, **changes)
    once = replace(repaired.guidance, negative_scale=1.0) if "sampler" in changes else repaired.guidance
    repaired = replace(repaired, guidance=once)
    assert not np.array_equal(own.render(job(9), repaired), own.render(job(9), replace(repaired, compat=True)))
    neither = replace(repaired, sampler="flow", guidance=replace(once, negative_scale=1.0))
    assert np.array_equal(own.render(job(9), neither), own.render(job(9), replace(neither, compat=True)))


def test_a_face_below_a_token_is_heard_unless_compat(tmp_path: Path) -> None:
    """The released rule floors its mask to nothing: with it the voice moves nothing."""
    own, settings = renderer(tmp_path, "preview"), small("preview", num_steps=1, window_frames=13)
    tiny = FaceBox(20, 24, 20, 24)
    released = replace(settings, compat=True, guidance=replace(settings.guidance, negative_scale=1.0))
    quiet = {"samples": np.zeros(9 * 640, np.float32) + 1e-3, "face": tiny}
    assert np.array_equal(own.render(job(9, face=tiny), released), own.render(job(9, **quiet), released))
    assert not np.array_equal(own.render(job(9, face=tiny), settings), own.render(job(9, **quiet), settings))


@pytest.mark.parametrize("variant", ["preview", "flash"])
def test_tasks_differ_in_what_is_known_and_heard(tmp_path: Path, variant: Variant) -> None:
    """A last picture, no voice and no picture each change the video; the shape is the portrait's, or a square."""
    own, settings = renderer(tmp_path, variant), small(variant, num_steps=2, window_frames=13, long_video="pixel")
    tasks = [job(22), job(22, last_picture=OTHER), job(22, hears=False), job(22, portrait=None)]
    videos = [own.render(task, settings) for task in tasks]
    assert [video.shape for video in videos] == [(19, 32, 32, 3)] * 4  # what does not fill a last window is cut
    for i, video in enumerate(videos):
        assert not any(np.array_equal(video, other) for other in videos[:i])
    first_window = videos[0][:5]  # the last picture is only told to the last window
    assert np.array_equal(first_window, videos[1][:5])


def test_known_prompts_and_portraits_need_no_encoders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Embeddings are read from disk, also by another process; damaged ones are made anew, a new portrait is encoded."""
    own, settings = renderer(tmp_path, "flash"), small("flash", num_steps=1, window_frames=5)
    first = own.render(job(5), settings)
    with monkeypatch.context() as patch:
        for load in ("load_text", "load_clip"):
            patch.setattr(WeightsFolder, load, lambda *arguments: pytest.fail("an encoder was loaded"))
        assert np.array_equal(first, own.render(job(5), settings))
        with pytest.raises(pytest.fail.Exception):
            own.render(job(5, portrait=OTHER), settings)
    kept = list((tmp_path / "cache").iterdir())
    assert len(kept) == 3  # the prompt, the empty negative text and the portrait
    for path in kept:
        path.write_bytes(b"broken")
    assert np.array_equal(first, own.render(job(5), settings))


def test_a_voice_of_no_length_is_refused(tmp_path: Path) -> None:
    """Two latent frames are the least."""
    with pytest.raises(ConfigError, match=r"at least 5 frames \(0.2 s\), got 640 samples"):
        renderer(tmp_path, "flash").render(job(1))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sampler": "heun"}, "flow, unipc, dpmpp"), ({"num_steps": 0}, "steps must be at least 1"),
        ({"num_steps": 4, "cache_threshold": 0.1}, "4 steps are too few"), ({"window_frames": 12}, "at least 13 frames, got 12"),
        ({"window_frames": 29, "long_video": "latent"}, "at least 33 frames"),
        ({"sampler": "unipc", "long_video": "latent"}, "preview with the flow sampler, got preview with unipc"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_run_are_refused(changes: dict[str, object], says: str) -> None:
    """When they are made, not after minutes of work."""
    with pytest.raises(ValueError, match=says):
        small("preview", **changes)
