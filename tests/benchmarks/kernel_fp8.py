"""The 8-bit attention cases of the kernel benchmark: quantisation counts, so each candidate begins at the packed q, k, v of new tokens.

Ours writes 8-bit ring rows and attends in 8 bits; the library's attention gets bfloat16 rows from the same kernel. Both rings hold the
same older frames, in their own precision.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels import qkv_rope
from kernels.fp8 import quantize
from kernels.qkv_rope import qkv_norm_rope_append
from kernels.window_attention import Scales, Session, reference, window_attention
from tests.benchmarks.kernel_cases import Case, Goal, Scale
from tests.benchmarks.kernel_windows import MAX_SAMPLES, dense

NEW_FRAMES = 3
# Rounding q, k, v and the softmax weights of normal numbers to e4m3 costs 0.054 over 21 frames, 0.047 of it q, k and v alone (computed in
# float64). More than that is a mistake. The gate for use, 0.04, is missed by the format itself on such data (docs/kernels.md).
MAX_ERROR = 0.06


def fp8_cases(scale: Scale) -> list[Case]:
    shapes = [(1, 12), (1, 21), (8, 21)] if scale.device == "cuda" else [(1, 4), (2, 4)]
    return [_append_case(scale, batch) for batch in scale.batches] + [_case(scale, *shape) for shape in shapes]


def _append(scale: Scale, tokens: int, rows: int, new: Tensor) -> tuple[Tensor, ...]:
    """Inputs of the append operation, without caches: `tokens` new rows, whose slots are `new`, of rings of `rows` rows a session."""
    angle = torch.randn(rows, scale.head_dim // 2, device=scale.device)
    weights = (scale.normal(scale.dim) for _ in range(2))
    rope = torch.stack((angle.cos(), angle.sin()), dim=-1)
    return (scale.normal(tokens, 3 * scale.dim), *weights, rope, (new % rows).int(), new.int())


def _rings8(*rings: Tensor, heads: int) -> tuple[Tensor, ...]:
    found = [quantize(ring.float().unflatten(1, (heads, -1))) for ring in rings]
    return (*(x8.flatten(1) for x8, _ in found), *(scale.t().contiguous() for _, scale in found))


def _append_case(scale: Scale, batch: int) -> Case:
    """What 8-bit rows cost, beside the bfloat16 rows of the case before."""
    tokens = NEW_FRAMES * scale.frame_tokens * batch

    def inputs() -> tuple[Tensor, ...]:
        new = torch.arange(tokens, device=scale.device)
        rings = _rings8(*(scale.normal(tokens, scale.dim) for _ in range(2)), heads=scale.heads)
        return (*_append(scale, tokens, tokens // batch, new), *rings)

    def exact(*given: Tensor) -> Tensor:
        wide = [t.double() if t.is_floating_point() else t for t in given[:6]]
        rings = (torch.zeros(tokens, scale.dim, dtype=torch.float64, device=scale.device) for _ in range(2))
        return qkv_rope.reference(*wide, *rings, None, None, 1e-6)[0]

    def part(out: qkv_rope.Queries) -> Tensor:
        assert out.scale is not None
        return (out.q.double().unflatten(1, (scale.heads, -1)) * out.scale.t()[..., None]).flatten(1)

    def with_implementation(name: Any) -> Any:
        return lambda *given: qkv_norm_rope_append(*given, implementation=name)

    return Case(
        name=f"qkv_rope fp8 B={batch}", inputs=inputs, exact=exact, part=part, max_error=0.04, goals=(),
        candidates={"triton": with_implementation(scale.implementation), "eager": with_implementation("reference")},
        bytes=9.0 * tokens * scale.dim,
    )  # fmt: skip


def _case(scale: Scale, batch: int, window: int) -> Case:
    size = scale.frame_tokens
    q_len, ring = NEW_FRAMES * size, window * size
    sessions = [Session(q_len, i * ring, ring, 0, ring) for i in range(batch)]
    samples = min(MAX_SAMPLES, q_len)
    options: dict[str, Any] = {"implementation": scale.implementation}
    library = dense(scale, batch)

    def inputs() -> tuple[Tensor, ...]:
        new = torch.cat([torch.arange((i + 1) * ring - q_len, (i + 1) * ring, device=scale.device) for i in range(batch)])
        rings = [scale.normal(batch * ring, scale.dim) for _ in range(2)]
        return (*_append(scale, batch * q_len, ring, new), *rings, *_rings8(*rings, heads=scale.heads))

    def ours(*given: Tensor) -> Tensor:
        k8, v8, k_scale, v_scale = given[8:]
        q8, q_scale = qkv_norm_rope_append(*given[:6], k8, v8, k_scale, v_scale, **options)
        assert q_scale is not None
        return window_attention(q8, k8, v8, sessions, num_heads=scale.heads, scales=Scales(q_scale, k_scale, v_scale), **options)

    def theirs(*given: Tensor) -> Tensor:
        return library["sdpa cudnn"](qkv_norm_rope_append(*given[:8], **options).q, *given[6:8])

    def exact(*given: Tensor) -> Tensor:
        wide = [t.double() if t.is_floating_point() else t for t in given[:8]]
        q, _ = qkv_rope.reference(*wide, None, None, 1e-6)
        return reference(q[:samples], wide[6][:ring], wide[7][:ring], [samples, 0, ring, 0, ring], scale.heads, None)

    return Case(
        name=f"window_attention fp8 B={batch} q=3f window={window}f", inputs=inputs, exact=exact, part=lambda out: out[:samples].double(),
        candidates={"triton": ours, "bf16 cudnn": theirs}, max_error=MAX_ERROR, goals=(Goal("A8", ("bf16 cudnn",), 1.1, 1.4),),
        operations=4.0 * batch * q_len * ring * scale.dim,
    )  # fmt: skip
