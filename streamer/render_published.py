"""`livemimic render` with the published EchoMimicV3 weights: whole windows at a time, not the live path."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
from tqdm import tqdm

from model.errors import ConfigError
from model.geometry import FRAME_SAMPLES_48K, MEDIA_RATE, Geometry
from model.portraits import open_picture, open_portrait
from model.presets import PUBLISHED
from streamer.errors import BadInput
from streamer.film import Film, read_voice, write_video
from streamer.portraits import portrait_file
from streamer.published_options import published_settings
from streamer.spoken import to_model_rate

if TYPE_CHECKING:
    from PIL import Image

    from model.echomimic.offline import Job

ASPECT_TOLERANCE = 0.05  # the last picture is stretched to the first one's shape by no more than this


def render_published(args: argparse.Namespace) -> None:
    """Options, portrait, voice and folder are checked before anything large is loaded."""
    if args.weights is None:
        raise ConfigError("weights_missing", f"preset {args.preset} needs --weights DIR", "docs/echomimic_v3.md says what must be in it.")
    settings, sound = published_settings(args), read_voice(Path(args.audio))
    job = _job(args, sound)

    from model.devices import choose_device, working_dtype
    from model.echomimic.folder import WeightsFolder
    from model.echomimic.offline import OfflineRenderer

    device = choose_device(args.device)
    renderer = OfflineRenderer(WeightsFolder(args.weights, PUBLISHED[args.preset]), device, working_dtype(device))
    began = time.perf_counter()
    with tqdm(desc="render", unit="step", disable=None) as progress:
        frames = renderer.render(job, settings, lambda step, latent: progress.update() and None)
    seconds = len(frames) * FRAME_SAMPLES_48K / MEDIA_RATE
    write_video(Path(args.out), Film(_i420(frames), Geometry(width=frames.shape[2], height=frames.shape[1])), sound)
    print(f"{args.out}: {seconds:.1f} s of video in {time.perf_counter() - began:.1f} s")
    left_out = len(sound) / MEDIA_RATE - seconds
    if left_out > 0.2:
        print(f"  {left_out:.1f} s of the voice were left out: one window of {settings.window_frames} frames. See --long-video.")


def _job(args: argparse.Namespace, sound: np.ndarray) -> Job:
    from model.echomimic.framing import face_box
    from model.echomimic.offline import Job

    hears = args.task != "i2v"
    job = Job(samples=to_model_rate(sound).astype(np.float32) / 32768, prompt=args.prompt or "", hears=hears)
    if args.task == "t2v":
        return job
    data = portrait_file(args.portrait).read_bytes()
    if args.preset == "echomimic-v3-preview" and hears:
        picture, face = open_portrait(data)
        job = replace(job, portrait=picture, face=face_box(face))
    else:
        job = replace(job, portrait=open_picture(data))
    if args.task == "flf2v":
        job = replace(job, last_picture=_last_picture(portrait_file(args.last), job.portrait))
    return job


def _last_picture(path: Path, first: Image.Image | None) -> Image.Image:
    assert first is not None
    last = open_picture(path.read_bytes())
    if abs(last.width * first.height / (last.height * first.width) - 1) > ASPECT_TOLERANCE:
        sizes = f"{last.width}x{last.height}, the portrait is {first.width}x{first.height}"
        raise BadInput("last_shape", f"The last picture is {sizes}.", "Crop both to the same shape.")
    return last


def _i420(frames_FHW3: np.ndarray) -> Iterator[np.ndarray]:
    for frame in frames_FHW3:
        yield av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p").to_ndarray()
