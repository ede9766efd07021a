"""What every training program shares: the loop within a budget of minutes, averaged weights, resumable checkpoints, cards."""

from __future__ import annotations

import argparse
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
from tqdm import tqdm

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


def add_arguments(parser: argparse.ArgumentParser, *, minutes: float, batch: int, rate: float, batch_of: str = "") -> None:
    """What every program that learns from clips is told, with its defaults."""
    parser.add_argument("--data", type=Path, required=True, help="folder of training clips")
    parser.add_argument("--eval", type=Path, required=True, help="folder of clips of other people")
    parser.add_argument("--out", type=Path, required=True, help="where weights go, with a card beside them, or rows of an ablation")
    parser.add_argument("--minutes", type=float, default=minutes)
    parser.add_argument("--batch", type=int, default=batch, help=batch_of or None)
    parser.add_argument("--rate", type=float, default=rate, help="the highest learning rate")
    parser.add_argument("--seed", type=int, default=0)


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


class Training(Generic[M]):
    """A module that learns for some minutes: a rate that rises and falls, clipped gradients, averaged weights, a bar.

    while training.goes_on():
        if training.step(loss_of(sample)):
            print(evaluate(training.average))
    """

    def __init__(
        self, name: str, module: M, optimiser: torch.optim.Optimizer, minutes: float, *, decay: float, report_every: int = 300
    ) -> None:  # fmt: skip
        """decay: of the averaged weights; 0 = none. The optimiser's rate is the highest there will be."""
        self.module, self.steps = module, 0
        self._optimiser, self._peak = optimiser, optimiser.param_groups[0]["lr"]
        self._trained = [p for group in optimiser.param_groups for p in group["params"]]
        self._averaged = Averaged(module, decay)
        self._budget, self._report_every = Budget(minutes), report_every
        self._bar = tqdm(total=100, desc=name, unit="%")

    @property
    def average(self) -> M:
        return self._averaged.module

    @property
    def progress(self) -> float:
        """Share of the minutes that is spent, 0 to 1."""
        return self._budget.progress

    @property
    def minutes(self) -> float:
        """Spent so far."""
        return self._budget.elapsed_s / 60.0

    def goes_on(self) -> bool:
        """Whether there is time for another step, at the rate that is set here."""
        progress = self._budget.progress
        for group in self._optimiser.param_groups:
            group["lr"] = cosine_rate(progress, self._peak)
        self._bar.n = int(100 * progress)
        if progress < 1.0:
            return True
        self._bar.close()
        return False

    def step(self, loss: Tensor) -> bool:
        """One step down; whether it is time to report."""
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._trained, 1.0)
        self._optimiser.step()
        self._averaged.update(self.module)
        self.steps += 1
        self._bar.set_postfix(step=self.steps, loss=f"{loss.item():.4f}")
        return self.steps % self._report_every == 0

    def save(self, path: Path) -> None:
        """All that `resume` needs. Written beside and renamed, so that a stop in the middle loses nothing."""
        temporary = path.with_suffix(".tmp")
        state = {"model": self.module.state_dict(), "average": self.average.state_dict(), "optimiser": self._optimiser.state_dict()}
        torch.save(state | {"steps": self.steps, "elapsed": self._budget.elapsed_s}, temporary)
        temporary.rename(path)

    def resume(self, path: Path) -> None:
        """Goes on from a checkpoint, its minutes counted, where there is one."""
        if not path.exists():
            return
        saved = torch.load(path, weights_only=True, map_location=next(iter(self._trained)).device)
        self.module.load_state_dict(saved["model"])
        self.average.load_state_dict(saved["average"])
        self._optimiser.load_state_dict(saved["optimiser"])
        self.steps = self._averaged.updates = saved["steps"]
        self._budget = Budget(self._budget.total_s / 60.0, saved["elapsed"])


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
