"""What the kernel benchmark compares: for every fused operation its inputs, its baselines, the exact result and the goals.

`Scale` has the sizes: the 1.3B model on a GPU, something tiny in a dry run. Baselines get everything they could ask for, such as keys that
lie packed already. A goal is the time of the best of its baselines over ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import cross_attention, fp8_linear, qkv_rope, residual_norm, yuv
from kernels.gelu_linear import gelu_linear


@dataclass(frozen=True, slots=True)
class Goal:
    """must and stretch: the ratio to the best of the baselines whose names begin with one of `against`; "floor" is what the bytes or
    operations of the case would take at the device's own ceilings."""

    id: str
    against: tuple[str, ...]
    must: float
    stretch: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """inputs: one set, a new one at every call. exact: float64, to compare the first output of `ours` with, by `part` if it is sampled.

    Its error may be max_error, and no more than 1.2 times that of the candidate `no_worse_than`.
    """

    name: str
    inputs: Callable[[], tuple[Any, ...]]
    candidates: dict[str, Callable[..., Any]]
    exact: Callable[..., Tensor]
    part: Callable[[Any], Tensor]
    max_error: float
    goals: tuple[Goal, ...]
    no_worse_than: str | None = None
    ours: str = "triton"
    operations: float = 0.0
    bytes: float = 0.0


@dataclass(frozen=True, slots=True)
class Scale:
    device: str
    implementation: str  # what "ours" runs as: the Triton kernels, or in a dry run the operators, which on a CPU are the references
    heads: int = 12
    head_dim: int = 128
    ffn: int = 8960
    frame_tokens: int = 1024
    text: int = 512
    image: int = 257
    audio: int = 32
    batches: tuple[int, ...] = (1, 8)
    picture: int = 512

    @property
    def dim(self) -> int:
        return self.heads * self.head_dim

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.device, dtype=torch.bfloat16)


def compiled(function: Callable[..., Any], scale: Scale) -> Callable[..., Any]:
    """The strongest thing that torch makes of the reference."""
    if scale.device != "cuda":
        return function
    return torch.compile(function, mode="max-autotune-no-cudagraphs", dynamic=False)


def fused_cases(scale: Scale) -> list[Case]:
    cases = []
    for batch in scale.batches:
        cases += [_norm_case(scale, batch, fp8=False), _norm_case(scale, batch, fp8=True), _rope_case(scale, batch)]
        cases += [_cross_case(scale, batch), _ffn_case(scale, batch), _picture_case(scale, batch)]
    return cases


def _norm_case(scale: Scale, batch: int, fp8: bool) -> Case:
    def inputs() -> tuple[Any, ...]:
        x, y = (scale.normal(batch, 3 * scale.frame_tokens, scale.dim) for _ in range(2))
        return (x, y, *scale.normal(batch, 3, 3, scale.dim).unbind(2), None, None, 1e-6, fp8)

    def ours(x: Tensor, y: Tensor, gate: Tensor, mul: Tensor, add: Tensor, *rest: Any) -> Any:
        options = {"scale": mul, "shift": add, "fp8": fp8, "implementation": scale.implementation}
        return residual_norm.residual_gate_norm_modulate(x, y, gate, **options)

    def exact(x: Tensor, y: Tensor, gate: Tensor, mul: Tensor, add: Tensor, *rest: Any) -> Tensor:
        return residual_norm.reference(*(t.double() for t in (x, y, gate, mul, add)), None, None, 1e-6, False)[1]

    eager = residual_norm.reference
    elements = 3.0 * batch * scale.frame_tokens * scale.dim
    goals = [Goal("F3", ("compiled",), 1.3, 1.7)] if fp8 else [Goal("F2", ("compiled",), 1.1, 1.3), Goal("F2 eager", ("eager",), 4, 5)]
    if batch == max(scale.batches) and not fp8:
        goals.append(Goal("F2 rate", ("floor",), 0.0, 0.85))
    return Case(
        name=f"residual_norm{' fp8' if fp8 else ''} B={batch}", inputs=inputs, exact=exact, goals=tuple(goals),
        candidates={"triton": ours, "eager": eager, "compiled": compiled(eager, scale)},
        part=lambda out: out[1].double() * (out[2].double()[..., None] if fp8 else 1.0),
        max_error=0.04 if fp8 else 4e-3, bytes=elements * (7 if fp8 else 8),
    )  # fmt: skip


def _rope_case(scale: Scale, batch: int) -> Case:
    tokens = 3 * scale.frame_tokens

    def inputs() -> tuple[Any, ...]:
        angle = torch.randn(tokens, scale.head_dim // 2, device=scale.device)
        index = torch.arange(batch * tokens, device=scale.device, dtype=torch.int32)
        caches = (scale.normal(batch * tokens, scale.dim) for _ in range(2))
        weights = (scale.normal(scale.dim) for _ in range(2))
        rope = torch.stack((angle.cos(), angle.sin()), dim=-1)
        return (scale.normal(batch * tokens, 3 * scale.dim), *weights, rope, index % tokens, index, *caches)

    def exact(*given: Tensor) -> Tensor:
        wide = (t.double() if t.is_floating_point() else t for t in given)
        return qkv_rope.reference(*wide, None, None, 1e-6)[0]

    def eager(*given: Tensor) -> Tensor:
        return qkv_rope.reference(*given, None, None, 1e-6)[0]

    goals = [Goal("F1", ("compiled",), 1.3, 1.8), Goal("F1 eager", ("eager",), 5, 10)]
    if batch == max(scale.batches):
        goals.append(Goal("F1 rate", ("floor",), 0.0, 0.8))
    return Case(
        name=f"qkv_rope B={batch}", inputs=inputs, exact=exact, part=lambda out: out, max_error=4e-3,
        candidates={
            "triton": lambda *given: qkv_rope.qkv_norm_rope_append(*given, implementation=scale.implementation).q,
            "eager": eager, "compiled": compiled(eager, scale),
        },
        goals=tuple(goals), bytes=12.0 * batch * tokens * scale.dim,
    )  # fmt: skip


def _cross_case(scale: Scale, batch: int) -> Case:
    tokens = 3 * scale.frame_tokens

    def inputs() -> tuple[Any, ...]:
        keys = [scale.normal(batch, n, scale.dim) for n in (scale.text, scale.text, scale.image, scale.image)]
        audio = [scale.normal(batch, 3, scale.audio, scale.dim) for _ in range(2)]
        return (scale.normal(batch, tokens, scale.dim), *keys, *audio, scale.normal(batch, tokens).sigmoid())

    def ours(q: Tensor, tk: Tensor, tv: Tensor, ik: Tensor, iv: Tensor, ak: Tensor, av: Tensor, weight: Tensor) -> Tensor:
        options = {"num_heads": scale.heads, "implementation": scale.implementation}
        return cross_attention.cross_attention(q, (tk, tv), (ik, iv), (ak, av), weight, **options)

    def eager(*given: Tensor) -> Tensor:
        return cross_attention.reference(*given, scale.heads)

    def exact(*given: Tensor) -> Tensor:
        first = [t[:1].double() for t in given]
        return cross_attention.reference(*first, scale.heads)

    keys = scale.text + scale.image + scale.audio
    return Case(
        name=f"cross_attention B={batch}", inputs=inputs, exact=exact, part=lambda out: out[:1], max_error=1e-2,
        candidates={"triton": ours, "eager": eager, "compiled": compiled(eager, scale)},
        goals=(Goal("C1", ("eager", "compiled"), 1.5, 2.2),),
        operations=4.0 * batch * tokens * keys * scale.dim, bytes=4.0 * batch * tokens * scale.dim,
    )  # fmt: skip


def _ffn_case(scale: Scale, batch: int) -> Case:
    tokens = 3 * scale.frame_tokens * batch
    up, down = scale.normal(scale.ffn, scale.dim) / scale.dim**0.5, scale.normal(scale.dim, scale.ffn) / scale.ffn**0.5
    biases = scale.normal(scale.ffn), scale.normal(scale.dim)
    up8, down8 = (fp8_linear.reference(weight, False) for weight in (up, down))

    def ours(x: Tensor) -> Tensor:
        x8 = fp8_linear.quantize_rows(x, implementation=scale.implementation)
        hidden = fp8_linear.fp8_linear(*x8, *up8, biases[0])
        return fp8_linear.fp8_linear(*fp8_linear.quantize_rows(hidden, gelu=True, implementation=scale.implementation), *down8, biases[1])

    def library(x: Tensor) -> Tensor:
        return F.linear(F.gelu(F.linear(x, up, biases[0]), approximate="tanh"), down, biases[1])

    def epilogue(x: Tensor) -> Tensor:
        return F.linear(gelu_linear(x, up, biases[0]), down, biases[1])

    def exact(x: Tensor) -> Tensor:
        u, d, b, c = (t.double() for t in (up, down, *biases))
        return F.linear(F.gelu(F.linear(x[:256].double(), u, b), approximate="tanh"), d, c)

    candidates = {"fp8": ours, "bf16": library, "bf16 compiled": compiled(library, scale), "bf16 epilogue": epilogue}
    return Case(
        name=f"fp8 feed-forward B={batch}", inputs=lambda: (scale.normal(tokens, scale.dim),), candidates=candidates, ours="fp8",
        exact=exact, part=lambda out: out[:256], max_error=0.06, goals=(Goal("G1", ("bf16",), 1.25, 1.45),),
        operations=4.0 * tokens * scale.dim * scale.ffn,
    )  # fmt: skip


def _picture_case(scale: Scale, batch: int) -> Case:
    def exact(frames: Tensor) -> Tensor:
        return yuv.reference(frames.float()).double()

    return Case(
        name=f"rgb_to_i420 B={batch}", inputs=lambda: (scale.normal(4 * batch, 3, scale.picture, scale.picture).tanh(),), exact=exact,
        candidates={
            "triton": lambda frames: yuv.rgb_to_i420(frames, implementation=scale.implementation),
            "eager": yuv.reference, "compiled": compiled(yuv.reference, scale),
        },
        part=lambda out: out.double(), max_error=4e-3, goals=(Goal("I420", ("compiled",), 1.0, 1.5),),
        bytes=4.0 * batch * scale.picture**2 * 7.5,
    )  # fmt: skip
