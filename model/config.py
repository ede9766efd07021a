"""Configuration of the model family: one set of classes, numbers differ between presets.

The defaults of no field hide a preset: `PRESENTER` below and the published 1.3B variants are complete lists of numbers.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol


class TrunkConfig(Protocol):
    """What the transformer's blocks and head are made from, in every preset."""

    @property
    def dim(self) -> int: ...
    @property
    def ffn_dim(self) -> int: ...
    @property
    def num_heads(self) -> int: ...
    @property
    def eps(self) -> float: ...
    @property
    def patch(self) -> int: ...
    @property
    def latent_channels(self) -> int: ...
    @property
    def audio_bias(self) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DiTConfig:
    """Masked-reconstruction diffusion transformer (EchoMimicV3, arXiv 2507.03905, on the Wan 2.1 backbone)."""

    latent_channels: int
    mask_channels: int  # one a video frame of a latent frame
    dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    patch: int  # square spatial patch, in latent pixels
    freq_dim: int  # width of the sinusoidal timestep embedding
    text_dim: int
    image_dim: int
    image_tokens: int
    audio_dim: int
    audio_tokens: int  # a latent frame
    control_dim: int  # explicit motion controls a latent frame; 0 = the variant has none
    mean_codes: int  # numbers a latent frame that the learned mean latents are mixed by; 0 = the variant has none
    grid: int  # latent pixels a side, of pictures that are always framed alike; 0 = any size, no learned positions
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.mean_codes and not self.grid:
            raise ValueError("learned mean latents need a fixed grid")
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
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class VAEConfig:
    """Reference autoencoder of the embedded preset: `frame_channels` a video frame, `time_stride` frames a latent frame."""

    patch: int  # picture pixels a latent pixel, a side
    time_stride: int
    frame_channels: int
    widths: tuple[int, int, int]  # channels at 1/4, 1/8 and 1/16 of the picture's size
    grid: int = 16  # latent pixels a side

    @property
    def latent_channels(self) -> int:
        return self.frame_channels * self.time_stride


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowConfig:
    """The rolling window `[anchor | context | new]`, lengths in latent frames, and the sampler's noise levels."""

    context: int
    new: int
    sigmas: tuple[float, ...]  # noise levels of the few-step student, first 1.0
    context_sigma: float  # noise the context is given, as in training
    guidance: float  # of the sound against silence; 1 = none, which saves a third of the pass


PRESENTER_VAE = VAEConfig(patch=16, time_stride=4, frame_channels=8, widths=(24, 40, 64))
PRESENTER_DIT = DiTConfig(
    latent_channels=PRESENTER_VAE.latent_channels, mask_channels=4, dim=256, ffn_dim=1024, num_heads=4, num_layers=6, patch=4,
    freq_dim=128, text_dim=64, image_dim=PRESENTER_VAE.widths[2], image_tokens=16, audio_dim=192, audio_tokens=12, control_dim=4 * 10,
    mean_codes=64, grid=16,
)  # fmt: skip
PRESENTER_WINDOW = WindowConfig(context=2, new=1, sigmas=(1.0,), context_sigma=0.02, guidance=1.0)


def to_metadata(*configs: Any) -> dict[str, dict[str, Any]]:
    """Configs as plain JSON for a weight card, keyed by class name."""
    return {type(config).__name__: asdict(config) for config in configs}
