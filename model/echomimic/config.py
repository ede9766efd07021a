"""Numbers of the published EchoMimicV3 1.3B parts. Widths are parameters, so that miniature folders and golden files run alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Variant = Literal["preview", "flash"]
VARIANTS: tuple[Variant, ...] = ("preview", "flash")


@dataclass(frozen=True, slots=True, kw_only=True)
class WanVAEConfig:
    """Wan 2.1 causal video autoencoder: 8x in space, 4x in time, the first frame alone."""

    width: int = 96
    latent_channels: int = 16
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    num_residuals: int = 2  # an encoder level; a decoder level has one more
    temporal_down: tuple[bool, ...] = (False, True, True)

    def __post_init__(self) -> None:
        if len(self.temporal_down) != len(self.multipliers) - 1:
            raise ValueError(f"{len(self.multipliers)} levels need {len(self.multipliers) - 1} temporal_down, got {self.temporal_down}")
        if self.latent_channels != len(LATENT_MEAN):
            raise ValueError(f"latent_channels must be {len(LATENT_MEAN)}, got {self.latent_channels}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoMimicConfig:
    """The 1.3B transformer; defaults are the published widths."""

    variant: Variant
    dim: int = 1536
    ffn_dim: int = 8960
    num_heads: int = 12
    num_layers: int = 30
    latent_channels: int = 16
    mask_channels: int = 4
    freq_dim: int = 256
    text_dim: int = 4096
    text_len: int = 512
    image_dim: int = 1280
    audio_dim: int = 768
    audio_layers: int = 12  # flash: layers of wav2vec2 that are heard
    audio_hidden: int = 512  # flash: bottleneck of the audio projection
    audio_tokens: int = 32  # flash: tokens a latent frame
    patch: int = 2
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {self.variant!r}")
        if self.dim % self.num_heads or (self.dim // self.num_heads) % 2:
            raise ValueError(f"dim {self.dim} must split into {self.num_heads} heads of even width")

    @property
    def in_channels(self) -> int:
        return self.latent_channels + self.mask_channels + self.latent_channels

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

    @property
    def audio_bias(self) -> bool:
        return self.variant == "flash"


# Statistics of the published autoencoder's latents, a channel.
LATENT_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
LATENT_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip
