"""A tiny decoder for Wan 2.1 latents beside the full one: TAEHV's `taew2_1`, 25 times fewer operations, softer pictures.

2-D convolutions; time enters through memory blocks, which see the frame before, and through layers that make two frames of one.
Every latent frame gives four frames, of which the stream's first keeps the last. Layout and names of parameters are those of
the published file (github.com/madebyollin/taehv), whose encoder is not used.
Legend: B batch, C channels, T latent frames or frames of a chunk, F video frames, h = H/8, w = W/8.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from model.echomimic.tensor_file import TensorFile
from model.echomimic.vae import FRAMES_PER_LATENT, PICTURE_CHANNELS
from model.echomimic.vae_layers import History, as_chunk, as_frames, run_layers

LATENT_CHANNELS = 16
WIDTHS = (256, 128, 64, 64)
TIME_GROWTH = (1, 2, 2)
NUM_MEMORY_BLOCKS = 3  # a level


class _FrameConv(nn.Conv2d):
    """A convolution of every frame alone."""

    def __init__(self, channels_in: int, channels_out: int, bias: bool = True) -> None:
        super().__init__(channels_in, channels_out, 3, padding=1, bias=bias)

    def stream(self, x_BCTHW: Tensor, history: History) -> Tensor:
        return as_chunk(self(as_frames(x_BCTHW)), len(x_BCTHW))


class _MemoryBlock(nn.Module):
    """Residual; each frame sees the one before it, the stream's first sees zeros."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(2 * channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )  # fmt: skip

    def stream(self, x_BCTHW: Tensor, history: History) -> Tensor:
        before = history.get(self)
        first = torch.zeros_like(x_BCTHW[:, :, :1]) if before is None else before
        history[self] = x_BCTHW[:, :, -1:].clone()  # a view would keep the whole chunk
        past = torch.cat((first, x_BCTHW[:, :, :-1]), dim=2)
        out = self.conv(as_frames(torch.cat((x_BCTHW, past), dim=1)))
        return torch.relu(as_chunk(out, len(x_BCTHW)) + x_BCTHW)


class _Grow(nn.Module):
    """`growth` frames of one."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.growth = growth
        self.conv = nn.Conv2d(channels, growth * channels, 1, bias=False)

    def stream(self, x_BCTHW: Tensor, history: History) -> Tensor:
        frames = self.conv(as_frames(x_BCTHW))
        return as_chunk(frames.unflatten(1, (self.growth, -1)).flatten(0, 1), len(x_BCTHW))


class _Upsample(nn.Upsample):
    def stream(self, x_BCTHW: Tensor, history: History) -> Tensor:
        return as_chunk(self(as_frames(x_BCTHW)), len(x_BCTHW))


class _Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class TinyDecoder(nn.Module):
    """Decodes as `WanVAE` does: normalised latents, streams pass a `History`, empty at their start."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_Clamp(), _FrameConv(LATENT_CHANNELS, WIDTHS[0]), nn.ReLU()]
        for channels, following, growth in zip(WIDTHS, WIDTHS[1:], TIME_GROWTH, strict=False):
            layers += [_MemoryBlock(channels) for _ in range(NUM_MEMORY_BLOCKS)]
            layers += [_Upsample(scale_factor=2), _Grow(channels, growth), _FrameConv(channels, following, bias=False)]
        self.decoder = nn.Sequential(*layers, nn.ReLU(), _FrameConv(WIDTHS[-1], PICTURE_CHANNELS))

    def decode(self, z_BCThw: Tensor, history: History | None = None) -> Tensor:
        """Frames [B, 3, F, H, W] in [-1, 1]; F = 4T, less 3 where the stream starts."""
        history = {} if history is None else history
        frames = []
        for latent in z_BCThw.split(1, dim=2):
            begins = not history
            made = run_layers(self.decoder, latent, history)
            frames.append(made[:, :, FRAMES_PER_LATENT - 1 :] if begins else made)
        return torch.cat(frames, dim=2).clamp(0, 1) * 2 - 1


def load_tiny_decoder(path: Path, device: torch.device, dtype: torch.dtype) -> TinyDecoder:
    """From `taew2_1.pth` or the same as safetensors. Raises CheckpointError naming the file or the tensor."""
    file = TensorFile(path)
    with torch.device("meta"):
        decoder = TinyDecoder()
    used = {name: tuple(value.shape) for name, value in decoder.state_dict().items()}
    file.check(used, optional=[name for name in file.shapes() if name.startswith("encoder.")])
    decoder.load_state_dict({name: value.to(device, dtype) for name, value in file.values(used)}, assign=True)
    return decoder.eval().requires_grad_(False)
