"""A finished video from a portrait, a voice and a prompt, with the published weights: the path of the published scripts.

preview goes in pixel windows as long as the voice lasts; flash is one window. Legend: F video frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from model.echomimic.clip import clip_pixels
from model.echomimic.colour import match_colour
from model.echomimic.conditioning import known_video, masked_conditioning, resized, to_bytes, to_unit
from model.echomimic.denoise import Conditions, FlashPredict, Predict, PreviewPredict, denoise
from model.echomimic.folder import WeightsFolder
from model.echomimic.framing import FaceBox, face_mask, num_latents, output_size, whole_frames
from model.echomimic.long_video import Span, slide
from model.echomimic.samplers import make_sampler
from model.echomimic.settings import CALL_SHIFT, DEFAULTS, Settings
from model.echomimic.speech import SAMPLES_PER_FRAME, flash_features, preview_features
from model.echomimic.teacache import TeaCache
from model.echomimic.text_cache import TextCache, default_folder
from model.echomimic.umt5 import encode_text

SHORTEST_FRAMES = 5  # two latent frames
TEXT_LENGTH = 512

Observe = Callable[[int, Tensor], None]


class OfflineRenderer:
    """Not thread-safe. The text encoder is loaded for a prompt and let go again."""

    def __init__(self, folder: WeightsFolder, device: torch.device, dtype: torch.dtype, *, cache_folder: Path | None = None) -> None:
        folder.check()
        self._cache = TextCache(cache_folder or default_folder(), folder.paths["text"], dtype)
        self._folder, self._device, self._dtype = folder, device, dtype
        self._dit = folder.load_dit(device, dtype)
        self._vae = folder.load_vae(device, dtype)
        self._clip = folder.load_clip(device, dtype)
        self._wav2vec = folder.load_wav2vec()

    @torch.inference_mode()
    def render(
        self, portrait: Image.Image, samples: np.ndarray, prompt: str, *, negative: str = "", face: FaceBox | None = None,
        seed: int = 43, settings: Settings | None = None, observe: Observe | None = None,
    ) -> np.ndarray:  # fmt: skip
        """Frames uint8 [F, H, W, 3] at 25 fps. `samples`: mono, 16 kHz, float in [-1, 1]; the box is in the portrait's pixels."""
        settings = settings or DEFAULTS[self._folder.variant]
        total = whole_frames(len(samples) // SAMPLES_PER_FRAME)
        if total < SHORTEST_FRAMES:
            raise ValueError(f"audio must last at least {SHORTEST_FRAMES} frames (0.2 s), got {len(samples)} samples at 16 kHz")
        if self._folder.variant == "flash":
            total = min(total, whole_frames(settings.window_frames))
        size = output_size(portrait.width, portrait.height, settings.area)
        still = to_unit(resized(portrait, *size)[None]).to(self._device, self._dtype)
        texts = self._encode(prompt, negative)
        image = self._clip(clip_pixels(still[:, :, 0], self._clip.config.image_size).to(self._dtype))
        audio = self._hear(samples, total)
        mask = None if face is None else face_mask(face, portrait.size, size).to(self._device)
        generator = torch.Generator().manual_seed(seed)

        def generate(span: Span, known: Tensor | None) -> Tensor:
            frames = still if known is None else known[None].to(still) / 127.5 - 1
            video, known_mask = known_video(frames, list(range(frames.shape[2])), span.length)
            y = masked_conditioning(self._vae, video.to(still), known_mask.to(still))
            conditions = Conditions(
                y=y, prompt=texts[0], negative=texts[1], image=image, face_mask=mask,
                audio=audio if self._folder.variant == "flash" else audio[:, span.audio],
            )  # fmt: skip
            noise = torch.randn(1, 16, num_latents(span.length), *y.shape[3:], generator=generator).to(still)
            sampler = make_sampler(
                settings.sampler, settings.num_steps, constructor_shift=settings.constructor_shift, call_shift=CALL_SHIFT
            )
            latents = denoise(self._predict(settings), sampler, noise, conditions, observe)
            return (self._vae.decode(latents)[0].float().clamp(-1, 1) / 2 + 0.5).cpu()

        window = total if self._folder.variant == "flash" else settings.window_frames
        return finished(slide(generate, total, window) if window < total else generate(Span(0, total), None))

    def _predict(self, settings: Settings) -> Predict:
        """Anew for each window: TeaCache remembers steps."""
        caches: list[TeaCache | None] = [None, None]
        if settings.uses_cache:
            assert settings.cache_threshold is not None
            caches = [TeaCache(settings.cache_threshold, settings.cache_start, settings.num_steps) for _ in range(2)]
        if self._folder.variant == "preview":
            return PreviewPredict(self._dit, settings.guidance, settings.num_steps, caches[0])
        silent = caches[0] if settings.compat else caches[1]
        return FlashPredict(self._dit, settings.guidance, settings.num_steps, caches[0], silent)

    def _hear(self, samples: np.ndarray, total: int) -> Tensor:
        if self._folder.variant == "flash":
            features = flash_features(self._wav2vec, samples, total)
        else:
            features = preview_features(self._wav2vec, samples)
            # A voice that ends with the last frame lacks its last step, and a window would lack its last latent frame.
            missing = max(0, 2 * total - features.shape[1])
            features = torch.cat((features, features[:, -1:].expand(-1, missing, -1)), dim=1)
        return features.to(self._device, self._dtype)

    def _encode(self, *texts: str) -> list[Tensor]:
        """Valid tokens only. Embeddings are kept on disk; the encoder is let go."""
        found = {text: self._cache.get(text) for text in texts}
        new = [text for text, embedding in found.items() if embedding is None]
        if new:
            tokenizer, encoder = self._folder.load_tokenizer(), self._folder.load_text(self._device, self._dtype)
            length = min(TEXT_LENGTH, self._folder.widths.dit.text_len)
            batch = tokenizer(new, padding="max_length", truncation=True, max_length=length, return_tensors="pt").to(self._device)
            for text, made in zip(new, encode_text(encoder, batch["input_ids"], batch["attention_mask"]), strict=True):
                self._cache.put(text, made)
                found[text] = made
        return [embedding.to(self._device) for text in texts if (embedding := found[text]) is not None]


def finished(video_3FHW: Tensor) -> np.ndarray:
    """As the release writes it: truncated to 8 bit, every frame's colours matched to the first one's."""
    frames = to_bytes(video_3FHW).permute(1, 2, 3, 0).numpy()
    return np.stack([frames[0], *(match_colour(frame, frames[0]) for frame in frames[1:])])
