"""8-bit numbers: float8_e4m3fn with one float32 factor for every run of them that shares a largest value."""

from __future__ import annotations

import torch
from torch import Tensor

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0
TINY = 1e-12  # the least largest value: a run of zeros has a factor too


def quantize(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [..., K], float32 or float64, as x8 float8_e4m3fn [..., K] and factors float32 [...]: x is about x8 * factor.

    factor = max |x| / 448 over the last axis: the largest value of a run becomes the largest 8-bit number.
    """
    factor = x.abs().amax(dim=-1).clamp(min=TINY) / FP8_MAX
    return (x / factor[..., None]).to(FP8), factor.float()
