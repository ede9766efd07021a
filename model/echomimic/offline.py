"""A finished video from a portrait, a voice and a prompt, with the published weights: the path of the published scripts.

What is known of a window picks the task: its first frame (picture to video), the last too, or the eight that it continues from.
Legend: F video frames, H W pixels, T latent frames, h w latent pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from model.echomimic.colour import match_colour
from model.echomimic.conditioning import known_video, masked_conditioning, resized, to_bytes, to_unit
from model.echomimic.denoise import Conditions, FlashPredict, Predict, PreviewPredict, denoise
from model.echomimic.dit import EchoMimicDiT
from model.echomimic.encoders import Encoders
from model.echomimic.folder import WeightsFolder
from model.echomimic.framing import FaceBox, covering_grid, face_grid, grid_mask, num_latents, output_size, whole_frames
from model.echomimic.long_video import Span, denoise_in_windows, pixel_spans, slide
from model.echomimic.samplers import FlowEuler
from model.echomimic.settings import DEFAULTS, Settings
from model.echomimic.speech import SAMPLES_PER_FRAME
from model.echomimic.teacache import TeaCache
from model.echomimic.vae import WanVAE
from model.echomimic.vae_layers import History
from model.errors import ConfigError

SHORTEST_FRAMES = 5  # two latent frames

Observe = Callable[[int, Tensor], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """`samples`: mono, 16 kHz, float in [-1, 1], as long as the video. The box is in the portrait's pixels (preview)."""

    samples: np.ndarray
    prompt: str
    portrait: Image.Image | None = None  # without, a square made of the prompt alone
    face: FaceBox | None = None
    last_picture: Image.Image | None = None  # what the video ends with
    hears: bool = True  # without, the model is given silence: picture to video


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scene:
    """A job as the transformer is told it; a window adds what it knows and hears."""

    total: int  # frames
    first: Tensor  # [1, 3, 1, H, W] on the CPU, as the next; no frame where there is no portrait
    last: Tensor
    audio: Tensor
    conditions: Callable[..., Conditions]  # given `y` and `audio`

    @property
    def latent_shape(self) -> tuple[int, int]:
        return self.first.shape[3] // 8, self.first.shape[4] // 8


class OfflineRenderer:
    """Not thread-safe. Prompt and portrait are encoded before the transformer is loaded, so that both fit a small GPU one by one."""

    def __init__(self, folder: WeightsFolder, device: torch.device, dtype: torch.dtype, *, cache_folder: Path | None = None) -> None:
        folder.check()
        self._folder, self._device, self._dtype = folder, device, dtype
        self._encoders = Encoders(folder, device, dtype, cache_folder=cache_folder)

    @cached_property
    def _dit(self) -> EchoMimicDiT:
        return self._folder.load_dit(self._device, self._dtype)

    @cached_property
    def _vae(self) -> WanVAE:
        return self._folder.load_vae(self._device, self._dtype)

    @torch.inference_mode()
    def render(self, job: Job, settings: Settings | None = None, observe: Observe | None = None) -> np.ndarray:
        """Frames uint8 [F, H, W, 3] at 25 fps. `observe` is told every step's number and latent.

        Raises ConfigError for a voice that is too short, a picture that is too narrow, and a last picture with latent windows.
        """
        settings = settings or DEFAULTS[self._folder.variant]
        scene = self._scene(job, settings)
        generator = torch.Generator().manual_seed(settings.seed)
        if settings.long_video == "latent":
            video = self._latent_windows(scene, settings, generator, observe)
        else:
            video = self._pixel_windows(scene, settings, generator, observe)
        return finished(video)

    def _scene(self, job: Job, settings: Settings) -> _Scene:
        total = whole_frames(len(job.samples) // SAMPLES_PER_FRAME)
        if total < SHORTEST_FRAMES:
            message = f"the voice must last at least {SHORTEST_FRAMES} frames (0.2 s), got {len(job.samples)} samples at 16 kHz"
            raise ConfigError("voice_too_short", message, "Use a longer recording.")
        if settings.long_video is None:
            total = min(total, whole_frames(settings.window_frames))
        if settings.long_video == "latent" and job.last_picture is not None:
            message = "latent windows are all told of the same known frames, so the video cannot end with a picture of its own"
            raise ConfigError("bad_option", message, "Use --long-video pixel.")
        prompt, negative = self._encoders.text(job.prompt, settings.negative)
        audio = self._encoders.audio(job.samples, total)
        side = math.isqrt(settings.area)
        width, height = output_size(*(job.portrait.size if job.portrait else (side, side)), settings.area)

        def still(picture: Image.Image | None) -> np.ndarray:
            return np.zeros((0, height, width, 3), np.uint8) if picture is None else resized(picture, width, height)[None]

        first = still(job.portrait)
        mask = None
        if job.portrait is not None and job.face is not None:
            mask = self._face_mask(job.face, job.portrait.size, (width, height), settings.compat)
        return _Scene(
            total=total, first=to_unit(first), last=to_unit(still(job.last_picture)),
            audio=audio if job.hears else torch.zeros_like(audio),
            conditions=partial(
                Conditions, prompt=prompt, negative=negative, face_mask=mask,
                image=self._encoders.image(first[0]) if job.portrait else self._encoders.no_image(),
            ),
        )  # fmt: skip

    def _face_mask(self, face: FaceBox, picture: tuple[int, int], video: tuple[int, int], compat: bool) -> Tensor:
        """The released rule leaves nothing of a very small face."""
        return grid_mask((face_grid if compat else covering_grid)(face, picture, video), video).to(self._device)

    def _pixel_windows(self, scene: _Scene, settings: Settings, generator: torch.Generator, observe: Observe | None) -> Tensor:
        """[3, F, H, W] in 0..1; one window where everything fits into it."""
        spans = pixel_spans(scene.total, settings.window_frames)

        def generate(span: Span, known: Tensor | None) -> Tensor:
            first = scene.first if known is None else known[None].float() / 127.5 - 1
            y = self._y(span.length, first, scene.last if span == spans[-1] else scene.last[:, :, :0])
            heard = slice(span.start, span.start + span.length) if self._folder.variant == "flash" else span.audio
            noise = self._noise(scene, num_latents(span.length), generator)
            told = scene.conditions(y=y, audio=scene.audio[:, heard])
            return self._decode(denoise(self._predict(settings), settings.make_sampler(), noise, told, observe))

        return slide(generate, spans)

    def _latent_windows(self, scene: _Scene, settings: Settings, generator: torch.Generator, observe: Observe | None) -> Tensor:
        """One latent for the whole video. All windows are told the first one's known frames, so no more is encoded."""
        y = self._y(min(scene.total, whole_frames(settings.window_frames)), scene.first, scene.last)
        told = scene.conditions(y=y, audio=scene.audio)
        noise = self._noise(scene, num_latents(scene.total), generator)
        sampler = settings.make_sampler()
        assert isinstance(sampler, FlowEuler)
        return self._decode(
            denoise_in_windows(self._predict(settings), sampler, noise, told, window_frames=settings.window_frames, after_step=observe)
        )

    def _y(self, length: int, first: Tensor, last: Tensor) -> Tensor:
        """Conditioning of a window that begins and ends with these frames."""
        index = [*range(first.shape[2]), *range(length - last.shape[2], length)]
        video, mask = known_video(torch.cat((first, last), dim=2), index, length)
        return masked_conditioning(self._vae, video.to(self._device, self._dtype), mask.to(self._device))

    def _noise(self, scene: _Scene, frames: int, generator: torch.Generator) -> Tensor:
        """Drawn on the CPU: the same on every device."""
        return torch.randn(1, 16, frames, *scene.latent_shape, generator=generator).to(self._device, self._dtype)

    def _decode(self, latents: Tensor) -> Tensor:
        """Frame by frame to the CPU, so that a long video does not fill the device."""
        history: History = {}
        parts = [self._vae.decode(frame, history)[0].float().cpu() for frame in latents.split(1, dim=2)]
        return torch.cat(parts, dim=1).clamp(-1, 1) / 2 + 0.5

    def _predict(self, settings: Settings) -> Predict:
        """Anew for each window: TeaCache remembers steps."""
        caches: list[TeaCache | None] = [None, None]
        if settings.cache_threshold is not None:
            caches = [TeaCache(settings.cache_threshold, settings.cache_start, settings.num_steps) for _ in range(2)]
        if self._folder.variant == "preview":
            return PreviewPredict(self._dit, settings.effective_guidance, settings.num_steps, caches[0])
        silent = caches[0] if settings.compat else caches[1]
        return FlashPredict(self._dit, settings.effective_guidance, settings.num_steps, caches[0], silent)


def finished(video_3FHW: Tensor) -> np.ndarray:
    """As the release writes it: truncated to 8 bit, every frame's colours matched to the first one's."""
    frames = to_bytes(video_3FHW).permute(1, 2, 3, 0).numpy()
    return np.stack([frames[0], *(match_colour(frame, frames[0]) for frame in frames[1:])])
