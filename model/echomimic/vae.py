"""The Wan 2.1 causal video autoencoder, streaming in both directions.

Frame 0 is a latent frame of its own, then four frames make one. Both directions work on one such group at a time and keep
what causal layers saw last, so a stream that is fed bit by bit gives the same bits as the whole video.
Names of parameters follow `Wan2.1_VAE.pth`. Legend: B batch, C latent channels, T latent frames, F video frames, h = H/8, w = W/8.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.echomimic.config import LATENT_MEAN, LATENT_STD, WanVAEConfig
from model.echomimic.vae_layers import (
    CausalConv3d,
    ChannelNorm,
    Downsample,
    FrameAttention,
    History,
    ResidualBlock,
    Upsample,
    run_layers,
)  # fmt: skip

FRAMES_PER_LATENT = 4
PICTURE_CHANNELS = 3


class _Stage(nn.Module):
    """Convolution in, middle and head: what encoder and decoder have in common."""

    def _middle(self, channels: int) -> nn.Sequential:
        return nn.Sequential(ResidualBlock(channels, channels), FrameAttention(channels), ResidualBlock(channels, channels))

    def _head(self, channels: int, channels_out: int) -> nn.Sequential:
        return nn.Sequential(ChannelNorm(channels), nn.SiLU(), CausalConv3d(channels, channels_out, 3))


class Encoder(_Stage):
    def __init__(self, config: WanVAEConfig) -> None:
        super().__init__()
        channels = config.width * config.multipliers[0]
        self.conv1 = CausalConv3d(PICTURE_CHANNELS, channels, 3)
        layers: list[nn.Module] = []
        for level, multiplier in enumerate(config.multipliers):
            for _ in range(config.num_residuals):
                layers.append(ResidualBlock(channels, config.width * multiplier))
                channels = config.width * multiplier
            if level < len(config.temporal_down):
                layers.append(Downsample(channels, config.temporal_down[level]))
        self.downsamples = nn.Sequential(*layers)
        self.middle = self._middle(channels)
        self.head = self._head(channels, 2 * config.latent_channels)

    def stream(self, x_B3FHW: Tensor, history: History) -> Tensor:
        x = run_layers(self.downsamples, self.conv1.stream(x_B3FHW, history), history)
        return run_layers(self.head, run_layers(self.middle, x, history), history)


class Decoder(_Stage):
    def __init__(self, config: WanVAEConfig) -> None:
        super().__init__()
        temporal_up = config.temporal_down[::-1]
        channels = config.width * config.multipliers[-1]
        self.conv1 = CausalConv3d(config.latent_channels, channels, 3)
        self.middle = self._middle(channels)
        layers: list[nn.Module] = []
        for level, multiplier in enumerate(reversed(config.multipliers)):
            for _ in range(config.num_residuals + 1):
                layers.append(ResidualBlock(channels, config.width * multiplier))
                channels = config.width * multiplier
            if level < len(temporal_up):
                layers.append(Upsample(channels, temporal_up[level]))
                channels //= 2
        self.upsamples = nn.Sequential(*layers)
        self.head = self._head(channels, PICTURE_CHANNELS)

    def stream(self, z_BCThw: Tensor, history: History) -> Tensor:
        x = run_layers(self.middle, self.conv1.stream(z_BCThw, history), history)
        return run_layers(self.head, run_layers(self.upsamples, x, history), history)


class WanVAE(nn.Module):
    """Encode and decode video in [-1, 1]; latents are normalised. Streams pass a `History`, empty at their start."""

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: WanVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.conv1 = CausalConv3d(2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.conv2 = CausalConv3d(config.latent_channels, config.latent_channels, 1)
        self.decoder = Decoder(config)
        for name, values in (("latent_mean", LATENT_MEAN), ("latent_std", LATENT_STD)):
            # Never on the meta device: checkpoints hold no value for them.
            self.register_buffer(name, torch.tensor(values, device="cpu").view(1, -1, 1, 1, 1), persistent=False)

    def encode_moments(self, video_B3FHW: Tensor, history: History) -> Tensor:
        """The next frames of a stream to normalised means beside raw log-variances [B, 2C, T, h, w].

        The stream's first call begins with frame 0; frames that do not fill a group of four are dropped.
        """
        groups: list[Tensor] = []
        position = 0
        while position + (size := FRAMES_PER_LATENT if history else 1) <= video_B3FHW.shape[2]:
            groups.append(self.conv1(self.encoder.stream(video_B3FHW[:, :, position : position + size], history)))
            position += size
        if not groups:
            raise ValueError(f"{video_B3FHW.shape[2]} frames do not make a latent frame")
        mean, log_variance = torch.cat(groups, dim=2).chunk(2, dim=1)
        return torch.cat(((mean - self.latent_mean.to(mean)) / self.latent_std.to(mean), log_variance), dim=1)

    def encode(self, video_B3FHW: Tensor, history: History | None = None) -> Tensor:
        """Most likely latents [B, C, T, h, w] of a whole video, or of a stream's next frames."""
        return self.encode_moments(video_B3FHW, {} if history is None else history)[:, : self.config.latent_channels]

    def decode(self, z_BCThw: Tensor, history: History | None = None) -> Tensor:
        """Frames [B, 3, F, H, W], not clamped; F = 4T, less 3 where the stream starts."""
        history = {} if history is None else history
        z = z_BCThw * self.latent_std.to(z_BCThw) + self.latent_mean.to(z_BCThw)
        return torch.cat([self.decoder.stream(self.conv2(frame), history) for frame in z.split(1, dim=2)], dim=2)
