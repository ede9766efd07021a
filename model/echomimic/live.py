"""The published presets live: portrait and voice to frames, chunk by chunk, in the rolling window `[anchor | context | new]`.

Published weights attend in both directions, and their window is computed anew for every chunk; students with causal attention
keep keys and compute each latent frame once. All streaming state is in `LiveState`, immutable and passed in and out.
Legend: C latent channels, T latent frames of a window, F video frames, h w latent pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kernels.yuv import rgb_to_i420
from model.compilation import check_compile, compile_forward
from model.config import WindowConfig
from model.devices import choose_device, working_dtype
from model.echomimic.causal import HEARD_LATENTS, CausalDiT, CausalWindow
from model.echomimic.clip import ClipVision, clip_pixels
from model.echomimic.conditioning import known_video, masked_conditioning, to_unit
from model.echomimic.config import Variant
from model.echomimic.denoise import Conditions, FlashPredict, PreviewPredict
from model.echomimic.dit import EchoMimicDiT
from model.echomimic.encoders import Encoders
from model.echomimic.folder import WeightsFolder
from model.echomimic.framing import TOKEN_PIXELS, covering_grid, face_box, grid_mask
from model.echomimic.live_speech import LOOKAHEAD_FRAMES, LiveSpeech
from model.echomimic.recomputed_window import RecomputedWindow
from model.echomimic.settings import DEFAULTS, SHIFT, Settings
from model.echomimic.tiny_decoder import load_tiny_decoder
from model.echomimic.vae import FRAMES_PER_LATENT, WanVAE
from model.echomimic.vae_layers import History
from model.errors import ConfigError
from model.facefinder import find_faces
from model.geometry import FPS, FRAME_SAMPLES_16K, Geometry
from model.presets import LiveOptions
from model.sampler import shifted_sigmas

STUDENT_STEPS = 4


class Decoder(Protocol):
    """`WanVAE`, or the tiny decoder."""

    def decode(self, z_BCThw: Tensor, history: History) -> Tensor: ...


class Window(Protocol):
    """`RecomputedWindow`, or `CausalWindow`."""

    def open(self, told: Conditions, known: Tensor, seed: int) -> Any: ...
    def advance(self, states: Sequence[Any], features: Sequence[Tensor]) -> tuple[list[Tensor], list[Any]]: ...


@dataclass(frozen=True, slots=True)
class LiveState:
    """Where a session is: its window, what the decoder saw last, and the sound before the next chunk (int16, 16 kHz)."""

    window: Any
    history: History
    sound: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveParts:
    encoders: Encoders
    clip: ClipVision
    vae: WanVAE
    decoder: Decoder
    speech: LiveSpeech
    window: Window


class LivePipeline:
    """Presets `echomimic-v3-preview` and `echomimic-v3-flash`. Implements `model.presets.Pipeline`. Not thread-safe."""

    def __init__(self, variant: Variant, parts: LiveParts, options: LiveOptions, device: torch.device, dtype: torch.dtype) -> None:
        self._variant, self._parts, self._options = variant, parts, options
        self._device, self._dtype = device, dtype
        self.geometry = Geometry(
            width=options.width, height=options.height, chunk_frames=options.chunk_latents * FRAMES_PER_LATENT,
            lookahead_ms=LOOKAHEAD_FRAMES * 1000 // FPS,
        )  # fmt: skip

    @classmethod
    def load(cls, variant: Variant, weights: Path, *, device: str, steps: int | None, options: LiveOptions) -> LivePipeline:
        """Every file is checked before the first is loaded. The prompt is encoded here, so that no session waits for umT5."""
        if steps is not None and steps < 1:
            raise ConfigError("bad_steps", f"steps must be at least 1, got {steps}", "Leave --steps out for the default.")
        chosen = choose_device(device)
        check_compile(options.compile, chosen)
        dtype = working_dtype(chosen)
        folder = WeightsFolder(weights, variant)
        folder.check()
        adapter = None if options.adapter is None else folder.read_adapter(options.adapter)
        tiny = None if options.tiny_decoder is None else load_tiny_decoder(options.tiny_decoder, chosen, dtype)
        encoders = Encoders(folder, chosen, dtype)
        encoders.text(options.prompt, _negative(variant, options))
        dit, vae = folder.load_dit(chosen, dtype, adapter), folder.load_vae(chosen, dtype)
        heard = HEARD_LATENTS if options.is_causal else 1 + options.context + options.chunk_latents
        speech = LiveSpeech(
            folder.load_wav2vec().to(chosen), variant, chunk_frames=options.chunk_latents * FRAMES_PER_LATENT,
            window_frames=(heard - 1) * FRAMES_PER_LATENT + 1,
        )  # fmt: skip
        window: Window
        if options.is_causal:
            window = _causal_window(dit, options, steps)
        else:
            window = _recomputed_window(dit, live_settings(variant, options, steps), options)
        clip = folder.load_clip(chosen, dtype)
        parts = LiveParts(encoders=encoders, clip=clip, vae=vae, decoder=tiny or vae, speech=speech, window=window)
        return cls(variant, parts, options, chosen, dtype)

    @torch.inference_mode()
    def open(self, portrait: np.ndarray, *, seed: int = 0, prompt: str = "") -> LiveState:
        """A new session from a portrait, uint8 RGB of the geometry's size. It has stood still so far, in silence."""
        size = (self.geometry.height, self.geometry.width, 3)
        if portrait.shape != size or portrait.dtype != np.uint8:
            raise ValueError(f"portrait must be uint8 {size}, got {portrait.dtype} {portrait.shape}")
        parts, options = self._parts, self._options
        still = to_unit(portrait[None]).to(self._device, self._dtype)
        texts = parts.encoders.text(prompt or options.prompt, _negative(self._variant, options))
        image = parts.clip(clip_pixels(still[:, :, 0], parts.clip.config.image_size).to(self._dtype))
        told = Conditions(
            y=self._still_to_video(still), prompt=texts[0], negative=texts[1], image=image, audio=still.new_empty(0),
            face_mask=self._face_mask(portrait),
        )  # fmt: skip
        known = parts.vae.encode(still.expand(-1, -1, options.context * FRAMES_PER_LATENT + 1, -1, -1))
        history: History = {}
        parts.decoder.decode(known, history)
        return LiveState(parts.window.open(told, known, seed), history, np.zeros(parts.speech.past_samples, np.int16))

    @torch.inference_mode()
    def step(
        self, states: Sequence[LiveState], audio: Sequence[np.ndarray], activity: Sequence[str]
    ) -> tuple[list[np.ndarray], list[LiveState]]:
        """One chunk for each session, see `model.presets.Pipeline`. These presets know no activity: they follow the voice alone."""
        for samples in audio:
            if samples.shape != (self.geometry.step_samples_16k,) or samples.dtype != np.int16:
                raise ValueError(f"audio must be int16 [{self.geometry.step_samples_16k}], got {samples.dtype} {samples.shape}")
        heard = [np.concatenate((state.sound, samples)) for state, samples in zip(states, audio, strict=True)]
        features = [self._parts.speech(samples).to(self._device, self._dtype) for samples in heard]
        latents, windows = self._parts.window.advance([state.window for state in states], features)
        frames, after = [], []
        for state, window, new, samples in zip(states, windows, latents, heard, strict=True):
            history = dict(state.history)  # decoding replaces what it holds, tensors stay as they are
            frames.append(rgb_to_i420(self._parts.decoder.decode(new, history)[0].transpose(0, 1).contiguous()))
            end = len(samples) - LOOKAHEAD_FRAMES * FRAME_SAMPLES_16K
            after.append(LiveState(window, history, samples[end - self._parts.speech.past_samples : end]))
        return [picture.cpu().numpy() for picture in frames], after

    def _still_to_video(self, still: Tensor) -> Tensor:
        """The masked video of a window in which the picture comes first and nothing else is known."""
        length = (self._options.context + self._options.chunk_latents) * FRAMES_PER_LATENT + 1
        video, known = known_video(still.float().cpu(), [0], length)
        return masked_conditioning(self._parts.vae, video.to(still), known.to(still))

    def _face_mask(self, portrait: np.ndarray) -> Tensor | None:
        """preview hears with its face; where none is found, everywhere."""
        if self._variant != "preview" or not (faces := find_faces(Image.fromarray(portrait))):
            return None
        size = (self.geometry.width, self.geometry.height)
        return grid_mask(covering_grid(face_box(faces[0]), size, size), size).to(self._device)


def _negative(variant: Variant, options: LiveOptions) -> str:
    return DEFAULTS[variant].negative if options.negative_prompt is None else options.negative_prompt


def live_settings(variant: Variant, options: LiveOptions, steps: int | None) -> Settings:
    """The variant's defaults where nothing is given, without TeaCache: it saves nothing at few steps."""
    default = DEFAULTS[variant]
    guidance = replace(
        default.guidance, text_scale=default.guidance.text_scale if options.text_guidance is None else options.text_guidance,
        audio_scale=default.guidance.audio_scale if options.audio_guidance is None else options.audio_guidance,
    )  # fmt: skip
    return replace(default, num_steps=steps or default.num_steps, guidance=guidance, cache_threshold=None)


def _recomputed_window(dit: EchoMimicDiT, settings: Settings, options: LiveOptions) -> RecomputedWindow:
    compile_forward(dit, options.compile)
    predict = (PreviewPredict if settings.variant == "preview" else FlashPredict)(dit, settings.effective_guidance, settings.num_steps)
    return RecomputedWindow(predict, settings.make_sampler)


def _causal_window(dit: EchoMimicDiT, options: LiveOptions, steps: int | None) -> CausalWindow:
    """Of students that need no guidance, unless it is asked for; levels are those of self-forcing (arXiv 2506.08009)."""
    causal = CausalDiT(dit, options.width * options.height // TOKEN_PIXELS**2)
    compile_forward(causal, options.compile)
    config = WindowConfig(
        context=options.context, new=1, sigmas=tuple(shifted_sigmas(steps or STUDENT_STEPS, SHIFT)), context_sigma=0.0,
        guidance=1.0 if options.audio_guidance is None else options.audio_guidance,
    )  # fmt: skip
    return CausalWindow(causal, config)
