"""The embedded preset's streaming audio encoder: 16 kHz sound to 50 Hz features that know phones and mouth shapes.

Stateless over a bounded past, so a stream cut into chunks gives exactly what the whole recording gives. Loudness is divided out of the
spectrum by a causal one-second average with a floor, so that a whisper and a shout look alike and silence still looks silent; how loud
a moment is beside the loudest of the past three seconds, its stress, is told on its own. Look-ahead is 80 ms in all: enough
for anticipatory lip movement, too little to be felt. Legend: B batch, S samples, F 10 ms frames, N 20 ms steps.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

RATE = 16_000
HOP, WINDOW = 160, 400
STEP = 320
NUM_MELS = 80
# What is heard: the 39 CMU phones and silence, in the order of the encoder's head.
PHONES = (
    "SIL", "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G", "HH", "IH", "IY", "JH", "K",
    "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH",
)  # fmt: skip
BILABIALS = ("P", "B", "M")  # which close the lips
_BILABIAL_LOGITS = [PHONES.index(phone) for phone in BILABIALS]
NUM_MOUTH = 16
_AVERAGE_FRAMES = 100  # loudness is averaged over the past second
_LEVEL_FRAMES = 300  # stress is measured against the loudest of the past three seconds
_STRESS_FRAMES = 7  # a moment is 70 ms
_FUTURE_STEPS = 3
# What is fainter than this is background: without it a breath at -63 dBFS after silence, the loudest for seconds, opened the mouth wide.
_FLOOR = 1e-6  # mean mel power of about -53 dBFS noise
_FAINT = 3e-5  # power of -45 dBFS
_SILENT = 1e-6  # power of -60 dBFS


def mel_filters() -> Tensor:
    """Triangular filters, equally spaced in mel (O'Shaughnessy) from 40 Hz to 7.6 kHz; float32 [WINDOW // 2 + 1, NUM_MELS]."""
    low, high = (2595.0 * torch.log10(torch.tensor(1.0 + f / 700.0)) for f in (40.0, 7600.0))
    points = 700.0 * (10.0 ** (torch.linspace(float(low), float(high), NUM_MELS + 2) / 2595.0) - 1.0)
    bins = torch.linspace(0.0, RATE / 2, WINDOW // 2 + 1)[:, None]
    rising = (bins - points[:-2]) / (points[1:-1] - points[:-2])
    falling = (points[2:] - bins) / (points[2:] - points[1:-1])
    return torch.minimum(rising, falling).clamp(min=0.0)


class ConvBlock(nn.Module):
    """Residual dilated convolution without padding: the past it needs is consumed, nothing is invented at the edges."""

    def __init__(self, dim: int, kernel: int, dilation: int, future: int) -> None:
        super().__init__()
        self.past = (kernel - 1) * dilation - future
        self.future = future
        self.conv = nn.Conv1d(dim, dim, kernel, dilation=dilation)
        self.mix = nn.Conv1d(dim, dim, 1)
        self.norm = nn.GroupNorm(1, dim, affine=True)

    def forward(self, x_BCN: Tensor) -> Tensor:
        kept = x_BCN[..., self.past : x_BCN.shape[-1] - self.future]
        # Normalised over channels of each step alone: a statistic over time would look into the future.
        normed = F.layer_norm(x_BCN.transpose(1, 2), (x_BCN.shape[1],), self.norm.weight, self.norm.bias).transpose(1, 2)
        return kept + self.mix(F.silu(self._convolved(normed)))

    def _convolved(self, x_BCN: Tensor) -> Tensor:
        """As one matrix product: for a single short stream torch's convolution takes three times as long."""
        kernel, dilation = self.conv.kernel_size[0], self.conv.dilation[0]
        taps = x_BCN.unfold(2, (kernel - 1) * dilation + 1, 1)[..., ::dilation].transpose(1, 2).flatten(2)
        return F.linear(taps, self.conv.weight.flatten(1), self.conv.bias).transpose(1, 2)


class AudioEncoder(nn.Module):
    dim = 192
    lookahead_samples = 1280
    window: Tensor
    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)
        self.register_buffer("filters", mel_filters(), persistent=False)
        self.stem = nn.Conv1d(NUM_MELS + 2, self.dim, 2, stride=2)
        shapes = ((7, 1, _FUTURE_STEPS), (5, 1, 0), (5, 2, 0), (5, 4, 0), (3, 1, 0))  # kernel, dilation, future steps
        blocks = [ConvBlock(self.dim, *shape) for shape in shapes]
        self._past_steps = sum(block.past for block in blocks)
        self.blocks = nn.ModuleList(blocks)
        self.phones = nn.Linear(self.dim, len(PHONES))
        self.mouth = nn.Linear(self.dim, NUM_MOUTH)
        self.voiced = nn.Linear(self.dim, 1)

    @property
    def context_samples(self) -> int:
        """Past samples `forward` needs before its first step."""
        return self._past_steps * STEP + _LEVEL_FRAMES * HOP

    @classmethod
    def load(cls, path: Path) -> AudioEncoder:
        encoder = cls()
        encoder.load_state_dict(load_file(path))
        return encoder.eval().requires_grad_(False)

    def forward(self, samples_BS: Tensor) -> Tensor:
        """float32 [B, context_samples + N * 320 + 1280] in [-1, 1] to features [B, N, 192]."""
        count, rest = divmod(samples_BS.shape[1] - self.context_samples - self.lookahead_samples, STEP)
        if rest or count < 1:
            raise ValueError(f"samples must be {self.context_samples} + N * {STEP} + {self.lookahead_samples}, got {samples_BS.shape[1]}")
        used = self.context_samples + count * STEP + _FUTURE_STEPS * STEP + WINDOW - HOP
        x = self.stem(self._spectrum(samples_BS[:, :used]))
        for block in self.blocks:
            x = block(x)
        return x.transpose(1, 2)

    def heads(self, features_BNC: Tensor) -> dict[str, Tensor]:
        """Phone logits [B, N, 40], mouth shapes [B, N, 16], voice-activity logits [B, N]."""
        return {
            "phones": self.phones(features_BNC), "mouth": self.mouth(features_BNC), "voiced": self.voiced(features_BNC)[..., 0],
        }  # fmt: skip

    def bilabials(self, features_BNC: Tensor) -> Tensor:
        """How likely each step is one that closes the lips [B, N]."""
        return self.phones(features_BNC).softmax(dim=-1)[..., _BILABIAL_LOGITS].sum(dim=-1)

    def _spectrum(self, samples_BS: Tensor) -> Tensor:
        """Normalised log-mel frames, the loudness they were divided by and the stress, [B, NUM_MELS + 2, F]."""
        recent = samples_BS[:, (_LEVEL_FRAMES - _AVERAGE_FRAMES) * HOP :]
        frames = recent.unfold(1, WINDOW, HOP) * self.window
        power = torch.fft.rfft(frames).abs().square() @ self.filters / WINDOW**2
        loudness = F.avg_pool1d(power.mean(dim=-1)[:, None], _AVERAGE_FRAMES + 1, stride=1) + _FLOOR
        power = power[:, _AVERAGE_FRAMES:].transpose(1, 2)
        normalised = torch.log(power / loudness + 0.01) * 0.4
        return torch.cat((normalised, torch.log(loudness) * 0.2 + 2.0, self._stress(samples_BS, power.shape[-1])), dim=1)

    def _stress(self, samples_BS: Tensor, frames: int) -> Tensor:
        """Log of a moment's power over that of the loudest moment of the past three seconds, 0 at most; [B, 1, F]."""
        energy = F.avg_pool1d(samples_BS.square()[:, None], HOP)
        moment = F.avg_pool1d(energy, _STRESS_FRAMES, stride=1) + _SILENT
        level = F.max_pool1d(moment, moment.shape[-1] - frames + 1, stride=1).clamp(min=_FAINT)
        return torch.log(moment[..., -frames:] / level).clamp(min=-6.0) * 0.4
