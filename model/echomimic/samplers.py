"""The published samplers: flow Euler, UniPC (order 2, bh2) and DPM-Solver++ (2M), over the flow v at noise levels sigma.

alpha = 1 - sigma, lambda = log(alpha / sigma), clean prediction m = x - sigma v. Coefficients are computed in float64 from the
float32 levels; latents are stepped in float32 and returned in their own dtype. UniPC: arXiv 2302.04867; DPM++: arXiv 2211.01095.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

TRAIN_STEPS = 1000
KINDS = ("flow", "unipc", "dpmpp")
UNIPC_LARGEST = float(np.float32(0.999))  # noise level of the largest training step


class Sampler(Protocol):
    """`sigmas` has one level more than there are steps, the last 0; `timesteps` is what the transformer is told."""

    sigmas: Tensor
    timesteps: Tensor

    def step(self, i: int, x: Tensor, v: Tensor) -> Tensor:
        """The latent after step i, given the latent before it and the flow predicted there. Steps are taken in order."""


def shifted(sigma: np.ndarray | float, shift: float) -> np.ndarray:
    return np.asarray(shift * sigma / (1 + (shift - 1) * sigma), dtype=np.float64)


def make_sampler(kind: str, num_steps: int, *, constructor_shift: float, call_shift: float) -> Sampler:
    """Two shifts, as in the release: Euler knows the first only; DPM++ applies one after the other."""
    if num_steps < 1:
        raise ValueError(f"steps must be at least 1, got {num_steps}")
    uniform = np.linspace(1.0, 0.0, num_steps + 1)[:-1]
    if kind == "flow":
        smallest = shifted(1 / TRAIN_STEPS, constructor_shift)
        return FlowEuler(shifted(np.linspace(1.0, float(smallest), num_steps), constructor_shift))
    if kind == "unipc":
        return UniPC(shifted(float(shifted(UNIPC_LARGEST, constructor_shift)) * uniform, call_shift))
    if kind == "dpmpp":
        return DPMPlusPlus(shifted(shifted(uniform, call_shift), constructor_shift))
    raise ValueError(f"sampler must be one of {', '.join(KINDS)}, got {kind!r}")


def _levels(sigmas: np.ndarray) -> Tensor:
    return torch.from_numpy(np.append(sigmas, 0.0)).float()


def _log_ratio(sigma: float) -> float:
    """lambda, with its limits at both ends."""
    if sigma in (0.0, 1.0):
        return math.inf if sigma == 0.0 else -math.inf
    return math.log((1 - sigma) / sigma)


class FlowEuler:
    def __init__(self, sigmas: np.ndarray) -> None:
        self.sigmas = _levels(sigmas)
        self.timesteps = self.sigmas[:-1] * TRAIN_STEPS

    def step(self, i: int, x: Tensor, v: Tensor) -> Tensor:
        return (x.float() + float(self.sigmas[i + 1] - self.sigmas[i]) * v.float()).to(x.dtype)


class _Multistep:
    """What the two second-order samplers share: levels, and clean predictions of the steps so far."""

    def __init__(self, sigmas: np.ndarray) -> None:
        self.sigmas = _levels(sigmas)
        self.timesteps = torch.from_numpy(sigmas * TRAIN_STEPS).to(torch.int64)
        self.num_steps = len(sigmas)
        self._sigma: list[float] = self.sigmas.tolist()
        self._lambda = [_log_ratio(sigma) for sigma in self._sigma]
        self._clean: dict[int, Tensor] = {}

    def _begin(self, i: int, x: Tensor, v: Tensor) -> Tensor:
        self._clean = {j: m for j, m in self._clean.items() if j >= i - 2}
        self._clean[i] = x - self._sigma[i] * v
        return self._clean[i]


class DPMPlusPlus(_Multistep):
    def step(self, i: int, x: Tensor, v: Tensor) -> Tensor:
        sample = x.float()
        m = self._begin(i, sample, v.float())
        h = self._lambda[i + 1] - self._lambda[i]
        if 0 < i < self.num_steps - 1:
            previous = self._lambda[i] - self._lambda[i - 1]
            m = m + 0.5 * (h / previous) * (m - self._clean[i - 1])
        alpha = 1 - self._sigma[i + 1]
        return (self._sigma[i + 1] / self._sigma[i] * sample - alpha * math.expm1(-h) * m).to(x.dtype)


class UniPC(_Multistep):
    def __init__(self, sigmas: np.ndarray) -> None:
        super().__init__(sigmas)
        self._corrected: Tensor | None = None

    def step(self, i: int, x: Tensor, v: Tensor) -> Tensor:
        sample = x.float()
        self._begin(i, sample, v.float())
        if i > 0:
            sample = self._correct(i)
        self._corrected = sample
        return self._predict(i, sample).to(x.dtype)

    def _order(self, i: int) -> int:
        return min(2, self.num_steps - i, i + 1)

    def _correct(self, i: int) -> Tensor:
        """The sample at level i again, now that the prediction there is known; of the order of the step that led to it."""
        assert self._corrected is not None
        m, before = self._clean[i], self._clean[i - 1]
        h = self._lambda[i] - self._lambda[i - 1]
        e, alpha = math.expm1(-h), 1 - self._sigma[i]
        base = self._sigma[i] / self._sigma[i - 1] * self._corrected - alpha * e * before
        if self._order(i - 1) == 1:
            return base - alpha * e * 0.5 * (m - before)
        r = (self._lambda[i - 2] - self._lambda[i - 1]) / h
        phi = e / -h - 1
        b1, b2 = phi / e, 2 * (phi / -h - 0.5) / e
        rho1 = (b1 - b2) / (1 - r)
        return base - alpha * e * (rho1 * (self._clean[i - 2] - before) / r + (b1 - rho1) * (m - before))

    def _predict(self, i: int, sample: Tensor) -> Tensor:
        m = self._clean[i]
        h = self._lambda[i + 1] - self._lambda[i]
        e, alpha = math.expm1(-h), 1 - self._sigma[i + 1]
        following = self._sigma[i + 1] / self._sigma[i] * sample - alpha * e * m
        if self._order(i) == 2:
            r = (self._lambda[i - 1] - self._lambda[i]) / h
            following = following - alpha * e * 0.5 * (self._clean[i - 1] - m) / r
        return following
