"""Samplers as free functions over a denoiser `x0 = denoise(x_t, t)` on the straight path x_t = (1 - t) x0 + t eps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Denoise = Callable[[Tensor, float], Tensor]
Noise = Callable[[], Tensor]


def sample_renoise(denoise: Denoise, noise: Noise, sigmas: Sequence[float]) -> Tensor:
    """Consistency sampling (arXiv 2303.01469, algorithm 1): predict the clean latent, noise it to the next level with fresh noise."""
    _check(sigmas)
    x = noise()
    for i, sigma in enumerate(sigmas):
        x0 = denoise(x, sigma)
        if i + 1 < len(sigmas):
            x = (1 - sigmas[i + 1]) * x0 + sigmas[i + 1] * noise()
    return x0


def sample_euler(denoise: Denoise, noise: Noise, sigmas: Sequence[float]) -> Tensor:
    """Deterministic Euler steps of the flow, v = (x_t - x0) / t, down to 0."""
    _check(sigmas)
    x = noise()
    for sigma, following in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        x = x + (following - sigma) * (x - denoise(x, sigma)) / sigma
    return x


def shifted_sigmas(num_steps: int, shift: float) -> list[float]:
    """`num_steps` noise levels from 1 down, uniform steps warped by `shift` (larger = more time at high noise)."""
    uniform = torch.linspace(1.0, 0.0, num_steps + 1)[:-1].tolist()
    return [shift * u / (1 + (shift - 1) * u) for u in uniform]


def _check(sigmas: Sequence[float]) -> None:
    falling = all(a > b for a, b in zip(sigmas, sigmas[1:], strict=False))
    if not sigmas or sigmas[0] != 1.0 or sigmas[-1] <= 0.0 or not falling:
        raise ValueError(f"sigmas must fall from 1.0 to above 0, got {list(sigmas)}")
