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
from model.echomimic.offline import OfflineRenderer  # noqa: E402
from model.echomimic.settings import DEFAULTS, Settings  # noqa: E402
from tests.model.echomimic.miniature import write_miniature  # noqa: E402

PORTRAIT = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8))


def renderer(path: Path, variant: Variant) -> OfflineRenderer:
    folder = WeightsFolder(write_miniature(path / "weights", variant), variant)
    return OfflineRenderer(folder, torch.device("cpu"), torch.float32, cache_folder=path / "cache")


def small(variant: Variant, **changes: object) -> Settings:
    return replace(DEFAULTS[variant], area=32 * 48, **changes)


def voice(num_frames: int) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 0.1, num_frames * 640).astype(np.float32)


def test_preview_continues_in_windows(tmp_path: Path) -> None:
    """As long as the voice, but for frames that do not fill a latent frame; same seed, same bits."""
    own = renderer(tmp_path, "preview")
    settings = small("preview", num_steps=2, window_frames=13)
    video = own.render(PORTRAIT, voice(30), "a person", face=FaceBox(10, 60, 20, 70), settings=settings)
    assert video.shape == (29, 32, 32, 3) and video.dtype == np.uint8
    again = own.render(PORTRAIT, voice(30), "a person", face=FaceBox(10, 60, 20, 70), settings=settings)
    other = own.render(PORTRAIT, voice(30), "a person", settings=settings, seed=7)
    assert np.array_equal(video, again) and not np.array_equal(video, other)


def test_flash_is_one_window_and_compat_changes_it(tmp_path: Path) -> None:
    """Cut to the window; the released TeaCache gives another picture than the corrected one."""
    own = renderer(tmp_path, "flash")
    steps: list[int] = []
    corrected = small("flash", window_frames=9, cache_threshold=10.0)
    video = own.render(PORTRAIT, voice(30), "a person", settings=corrected, observe=lambda step, x: steps.append(step))
    assert video.shape == (9, 32, 32, 3) and steps == list(range(8))
    released = own.render(PORTRAIT, voice(30), "a person", settings=replace(corrected, compat=True))
    assert not np.array_equal(video, released)


def test_a_known_prompt_needs_no_text_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its embedding is read from disk, also by another process; a damaged one is made anew."""
    own = renderer(tmp_path, "flash")
    settings = small("flash", num_steps=1, window_frames=5)
    first = own.render(PORTRAIT, voice(5), "a person", settings=settings)
    with monkeypatch.context() as patch:
        patch.setattr(WeightsFolder, "load_text", lambda *arguments: pytest.fail("the encoder was loaded"))
        assert np.array_equal(first, own.render(PORTRAIT, voice(5), "a person", settings=settings))
    kept = list((tmp_path / "cache").iterdir())
    assert len(kept) == 2  # the prompt and the empty negative text
    for path in kept:
        path.write_bytes(b"broken")
    assert np.array_equal(first, own.render(PORTRAIT, voice(5), "a person", settings=settings))


def test_a_voice_of_no_length_is_refused(tmp_path: Path) -> None:
    """Two latent frames are the least."""
    with pytest.raises(ValueError, match=r"at least 5 frames \(0.2 s\), got 640 samples"):
        renderer(tmp_path, "flash").render(PORTRAIT, voice(1), "a person")
