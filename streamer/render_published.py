"""`livemimic render` with the published EchoMimicV3 weights: whole windows at a time, not the live path."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import av
import numpy as np
from tqdm import tqdm

from model.errors import ConfigError
from model.geometry import FRAME_SAMPLES_48K, MEDIA_RATE, Geometry
from streamer.errors import BadInput

PUBLISHED: dict[str, Literal["preview", "flash"]] = {"echomimic-v3-preview": "preview", "echomimic-v3-flash": "flash"}


def render_published(
    *, sound: np.ndarray, out: Path, portrait: str | None, preset: str, weights: Path | None, device: str, steps: int | None,
    seed: int, prompt: str,
) -> None:  # fmt: skip
    """`sound`: int16 at 48 kHz. The folder and the portrait are checked before anything large is loaded."""
    variant = PUBLISHED[preset]
    if weights is None:
        raise ConfigError("weights_missing", f"preset {preset} needs --weights DIR", "docs/echomimic_v3.md says what must be in it.")
    if steps is not None and steps < 1:
        raise ConfigError("bad_steps", f"steps must be at least 1, got {steps}", "Leave --steps out for the default.")
    from model.portraits import builtin_portraits, open_portrait

    path = builtin_portraits().get(portrait or "", Path(portrait or ""))
    if not path.is_file():
        raise BadInput("unknown_portrait", f"{portrait} is neither a built-in presenter nor a file.", "Pass --portrait photo.jpg.")
    picture, face = open_portrait(path.read_bytes())

    from model.devices import choose_device, working_dtype
    from model.echomimic.folder import WeightsFolder
    from model.echomimic.framing import FaceBox
    from model.echomimic.offline import OfflineRenderer
    from model.echomimic.settings import DEFAULTS
    from streamer.film import write_video
    from streamer.spoken import to_model_rate

    chosen = choose_device(device)
    renderer = OfflineRenderer(WeightsFolder(weights, variant), chosen, working_dtype(chosen))
    settings = DEFAULTS[variant] if steps is None else replace(DEFAULTS[variant], num_steps=steps)
    box = FaceBox(face.top, face.bottom, face.left, face.right) if variant == "preview" else None
    began = time.perf_counter()
    with tqdm(desc="render", unit="step", disable=None) as progress:
        frames = renderer.render(
            picture, to_model_rate(sound).astype(np.float32) / 32768, prompt, face=box, seed=seed, settings=settings,
            observe=lambda step, latent: progress.update() and None,
        )  # fmt: skip
    seconds = len(frames) * FRAME_SAMPLES_48K / MEDIA_RATE
    write_video(out, _i420(frames), sound, Geometry(width=frames.shape[2], height=frames.shape[1]))
    print(f"{out}: {seconds:.1f} s of video in {time.perf_counter() - began:.1f} s")
    left_out = len(sound) / MEDIA_RATE - seconds
    if left_out > 0.2:
        print(f"  {left_out:.1f} s of the voice were left out: {preset} makes one window of {settings.window_frames} frames.")


def _i420(frames_FHW3: np.ndarray) -> Iterator[np.ndarray]:
    for frame in frames_FHW3:
        yield av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p").to_ndarray()
