"""Layers of the Wan 2.1 causal video autoencoder. Each takes a chunk of a stream and the stream's history.

A layer that looks back reads and replaces its own entry of the `History`, so a video in chunks gives the bits of the video
whole. Names of parameters follow the published file. Legend: B batch, C channels, T frames of the chunk, H W pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# What each looking-back layer saw last, by the layer. One a stream; empty at its start.
History = dict[nn.Module, Tensor]


class ChannelNorm(nn.Module):
    """Every position's channels to length sqrt(C), times a gain. `spatial_only` is the shape that attention layers store."""

    def __init__(self, channels: int, spatial_only: bool = False) -> None:
        super().__init__()
        self.scale = channels**0.5
        self.gamma = nn.Parameter(torch.ones(channels, 1, 1) if spatial_only else torch.ones(channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1) * self.scale * self.gamma


class CausalConv3d(nn.Conv3d):
    """A convolution that sees its own frame and earlier ones: before the stream there are zeros."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int | tuple[int, int, int]) -> None:
        time, rows, columns = (kernel,) * 3 if isinstance(kernel, int) else kernel
        super().__init__(channels_in, channels_out, (time, rows, columns), padding=(0, rows // 2, columns // 2))
        self.look_back = time - 1

    def stream(self, x_BCTHW: Tensor, history: History) -> Tensor:
        if not self.look_back:
            return self(x_BCTHW)
        before = history.get(self)
        if before is None:
            before = x_BCTHW.new_zeros(*x_BCTHW.shape[:2], self.look_back, *x_BCTHW.shape[3:])
        seen = torch.cat((before, x_BCTHW), dim=2)
        history[self] = seen[:, :, -self.look_back :].clone()  # a view would keep the whole chunk
        return self(seen)


def run_layers(layers: nn.ModuleList | nn.Sequential, x_BCTHW: Tensor, history: History) -> Tensor:
    """One layer after the other; those that look back are given the history."""
    for layer in layers:
        stream = getattr(layer, "stream", None)
        x_BCTHW = layer(x_BCTHW) if stream is None else stream(x_BCTHW, history)
    return x_BCTHW


class ResidualBlock(nn.Module):
    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        # The identity holds the place of training's dropout, which numbers the layers in the file.
        self.residual = nn.Sequential(
            ChannelNorm(channels_in), nn.SiLU(), CausalConv3d(channels_in, channels_out, 3),
            ChannelNorm(channels_out), nn.SiLU(), nn.Identity(), CausalConv3d(channels_out, channels_out, 3),
        )  # fmt: skip
        self.shortcut = CausalConv3d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()

    def stream(self, x_BCTHW: Tensor, history: History) -> Tensor:
        return run_layers(self.residual, x_BCTHW, history) + self.shortcut(x_BCTHW)


class FrameAttention(nn.Module):
    """One head over the positions of each frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels, spatial_only=True)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        frames = as_frames(x_BCTHW)
        q, k, v = self.to_qkv(self.norm(frames)).flatten(2).transpose(1, 2)[:, None].chunk(3, dim=-1)
        out = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2).reshape_as(frames)
        return x_BCTHW + as_chunk(self.proj(out), len(x_BCTHW))


class Downsample(nn.Module):
    """Half the size; with `temporal`, half the frames too, but for the stream's first, which stays alone."""

    def __init__(self, channels: int, temporal: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels, channels, 3, stride=2))
        self.time_conv = nn.Conv3d(channels, channels, (3, 1, 1), stride=(2, 1, 1)) if temporal else None

    def stream(self, x_BCTHW: Tensor, history: History) -> Tensor:
        x = as_chunk(self.resample(as_frames(x_BCTHW)), len(x_BCTHW))
        if self.time_conv is None:
            return x
        before = history.get(self)
        history[self] = x[:, :, -1:]
        return x if before is None else self.time_conv(torch.cat((before, x), dim=2))


class Upsample(nn.Module):
    """Twice the size, half the channels; with `temporal`, twice the frames too, but for the stream's first."""

    def __init__(self, channels: int, temporal: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(channels, channels // 2, 3, padding=1))
        self.time_conv = CausalConv3d(channels, 2 * channels, (3, 1, 1)) if temporal else None

    def stream(self, x_BCTHW: Tensor, history: History) -> Tensor:
        if self.time_conv is not None:
            if self in history:
                even, odd = self.time_conv.stream(x_BCTHW, history).chunk(2, dim=1)
                x_BCTHW = torch.stack((even, odd), dim=3).flatten(2, 3)
            # The first frame leaves no trace in the convolution's own history: the second one sees zeros before it.
            history[self] = x_BCTHW.new_empty(0)
        return as_chunk(self.resample(as_frames(x_BCTHW)), len(x_BCTHW))


def as_frames(x_BCTHW: Tensor) -> Tensor:
    """Every frame as a batch entry of its own, [B * T, C, H, W]."""
    return x_BCTHW.transpose(1, 2).flatten(0, 1)


def as_chunk(frames: Tensor, batch: int) -> Tensor:
    """The opposite of `as_frames`."""
    return frames.unflatten(0, (batch, -1)).transpose(1, 2)
