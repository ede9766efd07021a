"""The 1.3B transformer of EchoMimicV3: the blocks of `model.dit` at other widths, with the published embeddings around them.

Unlike the embedded preset it has one timestep a sample, text padded to a fixed length that attention does see, and returns the
flow (noise minus data). Names of parameters follow the published files.
Legend: B batch, C channels, T latent frames, h w latent pixels, N tokens, L context tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.attention import BranchGains, ContextFn, StaticKeys, own_frames_only
from model.dit import Block, Head, timestep_embedding, unpatch
from model.echomimic.audio_tokens import FlashAudio, PreviewAudio, flash_selection, preview_windows
from model.echomimic.config import EchoMimicConfig
from model.rope import rope_table

# Given the modulation e0 [B, 6, D], the tokens [B, N, D] and the blocks as a function, returns the blocks' output or a guess of it.
StepCache = Callable[[Tensor, Tensor, Callable[[Tensor], Tensor]], Tensor]


class ImageEmbedding(nn.Module):
    def __init__(self, image_dim: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.LayerNorm(image_dim), nn.Linear(image_dim, image_dim), nn.GELU(), nn.Linear(image_dim, dim), nn.LayerNorm(dim)
        )

    def forward(self, image_BLC: Tensor) -> Tensor:
        return self.proj(image_BLC)


class EchoMimicDiT(nn.Module):
    """`audio` is [B, steps, C] for preview and [B, F, 5, layers, C] for flash."""

    def __init__(self, config: EchoMimicConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        kernel = (1, config.patch, config.patch)
        self.patch_embedding = nn.Conv3d(config.in_channels, dim, kernel, stride=kernel)
        self.text_embedding = nn.Sequential(nn.Linear(config.text_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim))
        self.time_embedding = nn.Sequential(nn.Linear(config.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.img_emb = ImageEmbedding(config.image_dim, dim)
        if config.variant == "preview":
            self.audio2token = PreviewAudio(config.audio_dim, dim)
        else:
            self.audio_injection = FlashAudio(config.audio_layers, config.audio_dim, config.audio_hidden, config.audio_tokens, dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.head = Head(config)
        self._ropes: dict[tuple[Any, ...], Tensor] = {}

    def forward(
        self, x_BCThw: Tensor, y_BCThw: Tensor, t_B: Tensor, *, text: Sequence[Tensor], image_BLC: Tensor, audio: Tensor,
        face_mask_BN: Tensor | None = None, audio_scale: float = 1.0, gains: BranchGains | None = None,
        riflex: tuple[int, int] | None = None, cache: StepCache | None = None,
    ) -> Tensor:  # fmt: skip
        """Flow [B, C, T, h, w]. `text` holds valid tokens only; the mask [B, rows * columns] weighs what a place hears (preview)."""
        frames = x_BCThw.shape[2]
        words, image, sound = self.text_tokens(text), self.img_emb(image_BLC), self.audio_tokens(audio)
        if sound.shape[1] != frames:
            raise ValueError(f"audio covers {sound.shape[1]} latent frames, the video has {frames}")
        weighed = self._gains(gains, None if face_mask_BN is None else face_mask_BN.to(sound.dtype), audio_scale, frames)

        def static(layer: int) -> StaticKeys:
            return cast(Block, self.blocks[layer]).cross_attn.static_keys(words, image)

        return self.flow(x_BCThw, y_BCThw, t_B, static=static, audio_BTLD=sound, gains=weighed, riflex=riflex, cache=cache)

    def flow(
        self, x_BCThw: Tensor, y_BCThw: Tensor, t_B: Tensor, *, static: Callable[[int], StaticKeys], audio_BTLD: Tensor,
        gains: BranchGains | None = None, context: ContextFn = own_frames_only, context_frames: int = 0,
        riflex: tuple[int, int] | None = None, cache: StepCache | None = None,
    ) -> Tensor:  # fmt: skip
        """The same from embedded conditions: `static` gives a layer's keys of text and image. `context` adds earlier frames, see `DiT`."""
        patches = self.patch_embedding(torch.cat((x_BCThw, y_BCThw), dim=1))
        frames, rows, columns = patches.shape[2:]
        x_BND = patches.flatten(2).transpose(1, 2).contiguous()
        e_BD, e_B6D = self._time(t_B, x_BND.dtype)
        table = self._rope(context_frames + frames, rows, columns, riflex, x_BND.device)
        ropes = (table[context_frames * rows * columns :], table)

        def run(x: Tensor) -> Tensor:
            for layer, block in enumerate(self.blocks):
                x = block(x, e_B6D[:, None], static(layer), audio_BTLD, gains, layer, context, ropes)
            return x

        x_BND = run(x_BND) if cache is None else cache(e_B6D, x_BND, run)
        return unpatch(self.head(x_BND, e_BD[:, None]), frames, rows, columns, self.config.patch).transpose(1, 2)

    def _time(self, t_B: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """In the precision of its own weights, which loading leaves at float32."""
        angles = timestep_embedding(t_B, self.config.freq_dim, torch.float64)
        e_BD = self.time_embedding(angles.to(next(self.time_embedding.parameters()).dtype))
        return e_BD.to(dtype), self.time_projection(e_BD).unflatten(-1, (6, -1)).to(dtype)

    def text_tokens(self, text: Sequence[Tensor]) -> Tensor:
        """[B, text_len, D]. Padding becomes a constant token; it is attended to, as in the published model."""
        longest = max(len(tokens) for tokens in text)
        if longest > self.config.text_len:
            raise ValueError(f"text must have at most {self.config.text_len} tokens, got {longest}")
        return self.text_embedding(torch.stack([F.pad(tokens, (0, 0, 0, self.config.text_len - len(tokens))) for tokens in text]))

    def audio_tokens(self, audio: Tensor) -> Tensor:
        """[B, T, L, D]."""
        if self.config.variant == "preview":
            return preview_windows(self.audio2token(audio))
        return self.audio_injection(*flash_selection(audio))

    def _gains(self, gains: BranchGains | None, face_mask_BN: Tensor | None, scale: float, frames: int) -> BranchGains | None:
        if face_mask_BN is None and scale == 1.0:
            return gains
        audio: Tensor | float = scale if face_mask_BN is None else scale * face_mask_BN.repeat(1, frames)[:, :, None]
        gains = gains or BranchGains(1.0, 1.0, 1.0)
        return gains._replace(audio=audio * gains.audio)

    def _rope(self, frames: int, rows: int, columns: int, riflex: tuple[int, int] | None, device: torch.device) -> Tensor:
        key = (frames, rows, columns, riflex, device)
        if key not in self._ropes:
            with torch.inference_mode(False):
                self._ropes[key] = rope_table(self.config.head_dim, frames, rows, columns, riflex).to(device)
        return self._ropes[key]
