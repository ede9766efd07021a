"""TeaCache (arXiv 2411.19108): a step whose modulation hardly changed reuses what the blocks added last time.

As released, flash counts every pass but keeps one residual for its two kinds, which cancels audio guidance in half of the steps:
hand the same cache to both for that, and one each for the corrected behaviour.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

# Of the 1.3B base model: from the change of the modulation to the change of the output, highest power first.
POLYNOMIAL = (-5.21862437e4, 9.23041404e3, -5.28275948e2, 1.36987616e1, -4.99875664e-2)


class CacheCall(NamedTuple):
    number: int
    computed: bool
    accumulated: float


class TeaCache:
    def __init__(self, threshold: float, skip_start: int, num_calls: int) -> None:
        if num_calls < skip_start:
            raise ValueError(f"TeaCache skips from call {skip_start} on: {num_calls} steps are too few for it")
        self.threshold, self.skip_start, self.num_calls = threshold, skip_start, num_calls
        self.calls: list[CacheCall] = []
        self._clear()

    def _clear(self) -> None:
        self._count, self._accumulated = 0, 0.0
        self._previous: Tensor | None = None
        self._residual: Tensor | None = None

    def __call__(self, e0_B6D: Tensor, tokens_BND: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
        computed = self._is_due(e0_B6D)
        self._previous = e0_B6D
        if computed:
            out = run(tokens_BND)
            self._accumulated, self._residual = 0.0, out - tokens_BND
        else:
            assert self._residual is not None
            out = tokens_BND + self._residual
        self.calls.append(CacheCall(self._count, computed, self._accumulated))
        self._count += 1
        if self._count == self.num_calls:
            self._clear()
        return out

    def _is_due(self, e0_B6D: Tensor) -> bool:
        if self._count < self.skip_start or self._previous is None:
            return True
        change = float((e0_B6D - self._previous).abs().mean() / self._previous.abs().mean())
        value = 0.0
        for coefficient in POLYNOMIAL:
            value = value * change + coefficient
        self._accumulated += value
        return self._accumulated >= self.threshold
