"""How the kernel benchmark measures: each candidate in a CUDA graph of its own over rotating inputs, candidates taking turns.

On a machine without a GPU the same code runs the candidates once in a while and the numbers mean nothing: it proves that the program runs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

Inputs = tuple[Any, ...]
L2_BYTES = 60e6
MIN_LAUNCHES = 10
ROUNDS = 7
WARM_UP_S = 0.2


@dataclass(slots=True)
class Timing:
    """Microseconds a launch, one number a round; why there are none if the candidate cannot run here."""

    samples_us: list[float] = field(default_factory=list)
    unavailable: str | None = None

    @property
    def median_us(self) -> float:
        return statistics.median(self.samples_us)

    @property
    def spread_us(self) -> float:
        """Half the distance between the quartiles: differences below twice this are no differences."""
        low, _, high = statistics.quantiles(self.samples_us, n=4)
        return (high - low) / 2


def num_input_sets(set_bytes: int) -> int:
    """Enough that together they are three times the L2 cache, so that no launch finds its inputs there."""
    return min(MIN_LAUNCHES, max(1, -int(-3 * L2_BYTES // set_bytes)))


def poison(device: str) -> None:
    """NaN in the memory that outputs will be allocated from: an element nobody writes shows."""
    if device == "cuda":
        blocks = [torch.full((size,), float("nan"), device=device) for size in (1 << 20, 1 << 22, 1 << 24, 1 << 26)]
        del blocks


def measure(candidates: dict[str, Callable[..., Any]], sets: Sequence[Inputs], device: str) -> dict[str, Timing]:
    """Every candidate's timing; rounds interleave the candidates, in reverse order every other time."""
    timings = {name: Timing() for name in candidates}
    replays: dict[str, tuple[Callable[[], None], int]] = {}
    for name, run in candidates.items():
        try:
            replays[name] = _captured(run, sets) if device == "cuda" else _looped(run, sets)
        except Exception as error:  # a backend that refuses a shape is a result: it is in the table, with its reason
            timings[name].unavailable = f"{type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}"
    for index in range(ROUNDS if device == "cuda" else 2):
        for name in list(replays) if index % 2 == 0 else list(replays)[::-1]:
            replay, launches = replays[name]
            timings[name].samples_us.append((_cuda_us(replay) if device == "cuda" else _cpu_us(replay)) / launches)
    return timings


def eager_us(run: Callable[..., Any], inputs: Inputs, device: str) -> float:
    """One launch as a caller makes it, host work included."""
    run(*inputs)
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run(*inputs)
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e6


def _captured(run: Callable[..., Any], sets: Sequence[Inputs]) -> tuple[Callable[[], None], int]:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for inputs in (*sets, *sets):
            run(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph, launches = torch.cuda.CUDAGraph(), max(MIN_LAUNCHES, len(sets))
    with torch.cuda.graph(graph):
        for i in range(launches):
            run(*sets[i % len(sets)])
    end = time.perf_counter() + WARM_UP_S
    while time.perf_counter() < end:
        graph.replay()
        torch.cuda.synchronize()
    return graph.replay, launches


def _looped(run: Callable[..., Any], sets: Sequence[Inputs]) -> tuple[Callable[[], None], int]:
    run(*sets[0])
    return lambda: run(*sets[0]), 1


def _cuda_us(replay: Callable[[], None]) -> float:
    time.sleep(0.02)  # heavy candidates throttle those that follow
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    replay()
    start.record()
    replay()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) * 1e3


def _cpu_us(replay: Callable[[], None]) -> float:
    start = time.perf_counter()
    replay()
    return (time.perf_counter() - start) * 1e6


def ceilings(device: str) -> dict[str, float]:
    """What this device reaches at best: bfloat16 matrix product in TFLOP/s and copying in TB/s, normal numbers."""
    size = 8192 if device == "cuda" else 64
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    source = torch.randn(1 << (28 if device == "cuda" else 12), device=device, dtype=torch.bfloat16)
    target = torch.empty_like(source)
    found = measure({"product": lambda: a @ b, "copy": lambda: target.copy_(source)}, [()], device)
    return {
        "product_tflops": 2 * size**3 / found["product"].median_us * 1e-6,
        "copy_tbps": 2 * source.numel() * 2 / found["copy"].median_us * 1e-6,
    }
