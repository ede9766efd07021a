"""What is judged: the network's videos, made by the pipeline that serves, and those it is held against.

Videos are uint8 RGB [F, H, W, 3].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import torch

from model.errors import ConfigError
from model.geometry import MODEL_RATE
from model.pipeline import AvatarPipeline
from model.training.clips import Clip, clip_paths, load_clip
from model.training.loop import to_picture_tensor
from model.training.speech import HELD_OUT
from model.vae import ReferenceVAE

LEAD = MODEL_RATE  # samples a clip stores before its first frame


def held_out_clips(folder: Path, limit: int, chunk_frames: int) -> list[Clip]:
    """The first clips of a folder. Raises ConfigError where there is none, or one of a person who may have been trained on."""
    paths = clip_paths(folder)[:limit]
    if not paths:
        raise ConfigError("no_clips", f"{folder} holds no clip_*.npz", "Make some: livemimic train clips --first-seed 900000 --out DIR ...")
    clips = [load_clip(path) for path in paths]
    for path, clip in zip(paths, clips, strict=True):
        if clip.person_seed < HELD_OUT:
            raise ConfigError(
                "not_held_out", f"{path}: seed {clip.person_seed} is below {HELD_OUT}: people and voices of training", "Render others."
            )
        if len(clip.frames) % chunk_frames:
            raise ConfigError("bad_clip_length", f"{path} has {len(clip.frames)} frames", f"A multiple of {chunk_frames} is needed.")
    return clips


def to_rgb(i420_FhW: np.ndarray) -> np.ndarray:
    """uint8 I420 [F, H*3//2, W] as a viewer sees it."""
    return np.stack([av.VideoFrame.from_ndarray(frame, format="yuv420p").to_ndarray(format="rgb24") for frame in i420_FhW])


def on_clip(pipeline: AvatarPipeline, portraits: Sequence[np.ndarray], clip: Clip, seed: int) -> Iterator[np.ndarray]:
    """Each portrait moves and speaks as the clip does: I420 chunks [N, chunk_frames, H*3//2, W], one session a portrait."""
    geometry = pipeline.geometry
    states = [pipeline.open(portrait, seed=seed) for portrait in portraits]
    # A clip starts in the middle of a voice: what was said before is heard, as it would be in a session that goes on.
    before = np.pad(clip.samples[:LEAD], (len(states[0].past_audio) - LEAD, 0))
    states = [replace(state, past_audio=before) for state in states]
    for first in range(0, len(clip.frames), geometry.chunk_frames):
        start = LEAD + first * MODEL_RATE // geometry.fps
        heard = clip.samples[start : start + geometry.step_samples_16k]
        moved = clip.controls[first : first + geometry.chunk_frames]
        frames, states = pipeline.animate(states, [heard] * len(states), [moved] * len(states))
        yield np.stack(frames)


def network_video(pipeline: AvatarPipeline, clip: Clip, seed: int) -> np.ndarray:
    """The clip's person from the neutral reference."""
    return np.concatenate([to_rgb(chunk[0]) for chunk in on_clip(pipeline, [clip.references[0]], clip, seed)])


@torch.inference_mode()
def autoencoder_video(vae: ReferenceVAE, clip: Clip) -> np.ndarray:
    """The clip encoded and decoded: what the network would show if its latents were perfect."""
    device = vae.latent_mean.device
    reference = vae.reference(to_picture_tensor(clip.references[:1]).to(device))
    decoded = []
    moves = torch.from_numpy(clip.moves(slice(None), 0)).to(device).split(vae.config.time_stride)
    for part, moved in zip(to_picture_tensor(clip.frames).split(vae.config.time_stride), moves, strict=True):
        pictures = vae.decode(vae.encode(part.to(device), reference, moved), reference, moved)
        decoded.append(((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).movedim(1, -1).cpu().numpy())
    return np.concatenate(decoded)


def on_sound(pipeline: AvatarPipeline, portrait: np.ndarray, samples: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """A portrait says a recording, int16 at 16 kHz, moved by the controller: I420 chunks [chunk_frames, H*3//2, W] until it is over."""
    geometry = pipeline.geometry
    state = pipeline.open(portrait, seed=seed)
    padded = np.pad(samples, (0, geometry.step_samples_16k))
    for start in range(0, len(samples), geometry.chunk_samples_16k):
        (frames,), (state,) = pipeline.step([state], [padded[start : start + geometry.step_samples_16k]], ["speaking"])
        yield frames
