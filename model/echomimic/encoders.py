"""What a prompt, a portrait and a voice become before the transformer sees them.

The text and image encoders are loaded for what is not on disk yet and let go again: on a small GPU they must not stay beside the
transformer. The speech encoder is small and stays, on the CPU.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from model.echomimic.clip import clip_pixels
from model.echomimic.conditioning import to_unit
from model.echomimic.embedding_cache import EmbeddingCache, default_folder
from model.echomimic.folder import WeightsFolder
from model.echomimic.speech import flash_features, preview_features
from model.echomimic.umt5 import encode_text

TEXT_LENGTH = 512


class Encoders:
    """Results are on `device`, in `dtype`. Not thread-safe."""

    def __init__(self, folder: WeightsFolder, device: torch.device, dtype: torch.dtype, *, cache_folder: Path | None = None) -> None:
        self._folder, self._device, self._dtype = folder, device, dtype
        kept = cache_folder or default_folder()
        self._texts = EmbeddingCache(kept, folder.paths["text"], dtype)
        self._images = EmbeddingCache(kept, folder.paths["clip"], dtype)

    @cached_property
    def _wav2vec(self) -> nn.Module:
        return self._folder.load_wav2vec()

    @torch.inference_mode()
    def text(self, *texts: str) -> list[Tensor]:
        """Each one's valid tokens [L, D], L <= 512."""
        found = {text: self._texts.get(text.encode()) for text in texts}
        new = [text for text, embedding in found.items() if embedding is None]
        if new:
            tokenizer, encoder = self._folder.load_tokenizer(), self._folder.load_text(self._device, self._dtype)
            length = min(TEXT_LENGTH, self._folder.widths.dit.text_len)
            batch = tokenizer(new, padding="max_length", truncation=True, max_length=length, return_tensors="pt").to(self._device)
            for text, made in zip(new, encode_text(encoder, batch["input_ids"], batch["attention_mask"]), strict=True):
                self._texts.put(text.encode(), made)
                found[text] = made
        return [embedding.to(self._device) for text in texts if (embedding := found[text]) is not None]

    @torch.inference_mode()
    def image(self, pixels_HW3: np.ndarray) -> Tensor:
        """uint8 at the video's size to [1, 257, D]."""
        content = str(pixels_HW3.shape).encode() + pixels_HW3.tobytes()
        found = self._images.get(content)
        if found is None:
            clip = self._folder.load_clip(self._device, self._dtype)
            still = to_unit(pixels_HW3[None])[:, :, 0]
            found = clip(clip_pixels(still, clip.config.image_size).to(self._device, self._dtype))
            self._images.put(content, found)
        return found.to(self._device)

    def no_image(self) -> Tensor:
        """What stands where no picture is given."""
        clip = self._folder.widths.clip
        return torch.zeros(1, clip.num_tokens, clip.dim, device=self._device, dtype=self._dtype)

    @torch.inference_mode()
    def audio(self, samples: np.ndarray, num_frames: int) -> Tensor:
        """Mono, 16 kHz, float in [-1, 1]; preview [1, 2 F, C], a few steps more if the voice goes on, flash [1, F, 5, layers, C]."""
        if self._folder.variant == "flash":
            features = flash_features(self._wav2vec, samples, num_frames)
        else:
            features = preview_features(self._wav2vec, samples)
            # A voice that ends with the last frame lacks its last step, and a window would lack its last latent frame.
            missing = max(0, 2 * num_frames - features.shape[1])
            features = torch.cat((features, features[:, -1:].expand(-1, missing, -1)), dim=1)
        return features.to(self._device, self._dtype)
