"""From wav2vec2 features to audio tokens of each latent frame, in the way of either variant.

preview: 50 Hz features, projected one by one; a latent frame takes a window of them.
flash: 25 Hz features of all layers, five neighbours a video frame; a latent frame's are picked and projected together.
Legend: B batch, L feature steps, C feature channels, F video frames, T latent frames, D model width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDENING = 4  # feature steps that a preview window is widened by on either side
PREVIEW_TOKENS = 17  # a latent frame's window in preview: 9 steps, widened
NEIGHBOURS = 5  # positions around a video frame in flash features
LATTER = 8  # positions that a latent frame of four video frames keeps of them


def preview_ranges(num_steps: int) -> list[tuple[int, int]]:
    """First and last feature step of every latent frame, before widening; may lie outside the sequence."""
    frames = num_steps // 2
    if frames < 5:
        raise ValueError(f"audio must cover two latent frames (5 video frames, 10 feature steps), got {num_steps} steps")
    rate = num_steps / frames
    half = int(2 * rate)
    ranges = []
    for k in range(1, (frames - 1) // 4 + 1):
        first, last = rate * (4 * (k - 1) + 1) - 4, rate * (4 * k + 1) + 4
        centre = int((first + last) / 2) - 1
        ranges.append((centre - half, centre + half))
    start = ranges[0][0]
    return [(-(2 * half - start), start), *ranges]


def preview_index(num_steps: int) -> list[list[int]]:
    """Feature steps of every latent frame, -1 for a zero vector. Zeros stand at the end, whichever side ran out."""
    rows = []
    for first, last in preview_ranges(num_steps):
        wanted = range(first - WIDENING, last + WIDENING + 1)
        valid = [i for i in wanted if 0 <= i < num_steps]
        rows.append(valid + [-1] * (len(wanted) - len(valid)))
    return rows


class PreviewAudio(nn.Module):
    """Projection and norm of each step; then the windows, in which missing steps are zeros that attention does see."""

    def __init__(self, audio_dim: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(audio_dim, dim, bias=False)
        self.norm = nn.LayerNorm(dim)

    def forward(self, audio_BLC: Tensor) -> Tensor:
        return self.norm(self.proj(audio_BLC))


def preview_windows(tokens_BLD: Tensor) -> Tensor:
    """[B, T, 17, D]."""
    index = torch.tensor(preview_index(tokens_BLD.shape[1]), device=tokens_BLD.device)
    padded = F.pad(tokens_BLD, (0, 0, 0, 1))
    return padded[:, index.where(index >= 0, torch.full_like(index, tokens_BLD.shape[1]))]


def to_frame_rate(features_BLC: Tensor, num_frames: int) -> Tensor:
    """Features resampled to one step a video frame, first and last kept: [B, F, C]."""
    return F.interpolate(features_BLC.transpose(1, 2), size=num_frames, mode="linear", align_corners=True).transpose(1, 2)


def flash_windows(layers_FLC: Tensor) -> Tensor:
    """Each frame with its neighbours, edges repeated: [F, layers, C] to [F, 5, layers, C]."""
    frames = torch.arange(len(layers_FLC), device=layers_FLC.device)
    offsets = torch.arange(NEIGHBOURS, device=layers_FLC.device) - NEIGHBOURS // 2
    return layers_FLC[(frames[:, None] + offsets).clamp(0, len(layers_FLC) - 1)]


def flash_selection(audio_BF5LC: Tensor) -> tuple[Tensor, Tensor]:
    """The first frame's five positions [B, 1, 5, ...], and eight consecutive ones of every later latent frame [B, T-1, 8, ...]."""
    first, rest = audio_BF5LC[:, :1], audio_BF5LC[:, 1:].unflatten(1, (-1, 4))
    middle = NEIGHBOURS // 2
    parts = (rest[:, :, 0, : middle + 1], rest[:, :, 1:3, middle], rest[:, :, 3, middle:])
    return first, torch.cat(parts, dim=2)


class FlashAudio(nn.Module):
    """One stem for the first frame and one for the others, then all tokens of a latent frame from a common bottleneck."""

    def __init__(self, layers: int, channels: int, hidden: int, tokens: int, dim: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.proj1 = nn.Linear(NEIGHBOURS * layers * channels, hidden)
        self.proj1_vf = nn.Linear(LATTER * layers * channels, hidden)
        self.proj2 = nn.Linear(hidden, hidden)
        self.proj3 = nn.Linear(hidden, tokens * dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, first_B15LC: Tensor, latter_BT8LC: Tensor) -> Tensor:
        """[B, T, tokens, D]."""
        hidden = torch.cat((self.proj1(first_B15LC.flatten(2)), self.proj1_vf(latter_BT8LC.flatten(2))), dim=1)
        hidden = self.proj2(hidden.relu()).relu()
        return self.norm(self.proj3(hidden).unflatten(-1, (self.tokens, -1)))
