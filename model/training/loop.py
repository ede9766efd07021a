"""What every training program shares: learning-rate schedule, averaged weights, resumable checkpoints, cards."""

from __future__ import annotations

import copy
import json
import math
import shutil
import time
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from model.devices import keep_freed_memory, working_dtype

M = TypeVar("M", bound=nn.Module)


class Averaged(Generic[M]):
    """Exponential moving average of a module's parameters, with the usual warm-up of the decay."""

    def __init__(self, module: M, decay: float) -> None:
        self.module: M = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        pairs = zip(self.module.parameters(), module.parameters(), strict=True)
        for mine, theirs in pairs:
            mine.lerp_(theirs, 1.0 - decay)


def compile_blocks(blocks: nn.ModuleList) -> None:
    """Fuses the element-wise work of the transformer's blocks, a fifth of a step on a CPU; needs a C++ compiler, else left out."""
    if shutil.which("g++"):
        for block in blocks:
            block.compile()


def begin(seed: int) -> None:
    """What every program does first."""
    torch.manual_seed(seed)
    keep_freed_memory()


def mixed_precision(device: str) -> torch.autocast:
    """bfloat16 where that is faster, see `model.devices`."""
    dtype = working_dtype(torch.device(device))
    return torch.autocast(device, torch.bfloat16, enabled=dtype == torch.bfloat16)


class Budget:
    """Training measured in minutes of wall clock, because that is what one has; progress runs from 0 to 1."""

    def __init__(self, minutes: float, elapsed_s: float = 0.0) -> None:
        self.total_s = minutes * 60.0
        self._start = time.monotonic() - elapsed_s

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._start

    @property
    def progress(self) -> float:
        return min(self.elapsed_s / self.total_s, 1.0)


def cosine_rate(progress: float, peak: float, warmup: float = 0.03, floor: float = 0.02) -> float:
    """Linear warm-up to `peak` over the first `warmup` of the budget, then a cosine to `floor * peak`."""
    if progress < warmup:
        return peak * max(progress / warmup, 1e-3)
    phase = (progress - warmup) / (1.0 - warmup)
    return peak * (floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * phase)))


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate


def save_checkpoint(path: Path, **state: Any) -> None:
    """Written beside and renamed, so that a stop in the middle loses nothing."""
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    temporary.rename(path)


def save_part(path: Path, module: nn.Module, made: dict[str, Any], earlier: Path | None = None) -> None:
    """Weights, and a card beside them: how they were made, after what is known of the weights they went on from."""
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, path)
    known = earlier.with_suffix(".json") if earlier else None
    card = json.loads(known.read_text()) if known and known.exists() else {}
    path.with_suffix(".json").write_text(json.dumps(card | made, indent=2) + "\n")


def to_picture_tensor(frames: Any) -> Tensor:
    """uint8 [..., H, W, 3] to float32 [..., 3, H, W] in [-1, 1]."""
    return torch.as_tensor(frames).movedim(-1, -3).float().div_(127.5).sub_(1.0)


def psnr(prediction: Tensor, target: Tensor) -> float:
    """Decibels for pictures in [-1, 1]."""
    return float(10.0 * torch.log10(4.0 / (prediction.clamp(-1, 1) - target).square().mean()))
