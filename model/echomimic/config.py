"""Numbers of the published EchoMimicV3 1.3B parts. Widths are parameters, so that miniature folders and golden files run alike."""

from __future__ import annotations

from dataclasses import dataclass


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


# Statistics of the published autoencoder's latents, a channel.
LATENT_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
LATENT_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip
