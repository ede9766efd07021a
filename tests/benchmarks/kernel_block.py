"""The whole transformer block of the kernel benchmark: composed of our operations, and of their references under torch.compile.

One composition serves all: what differs is which implementation each operation runs as and whether its linear layers are 8-bit.
Text, image and audio keys are given, as they are projected once a session or a chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.cross_attention import cross_attention
from kernels.fp8_linear import fp8_linear, quantize_rows
from kernels.fp8_linear import reference as quantize_reference
from kernels.qkv_rope import qkv_norm_rope_append
from kernels.residual_norm import residual_gate_norm_modulate
from kernels.window_attention import Session, window_attention
from tests.benchmarks.kernel_cases import Case, Goal, Scale, compiled

NEW_FRAMES, WINDOW_FRAMES = 3, 12


class Block:
    """Weights of one block in bfloat16, in 8 bits beside them, and its forward pass."""

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        dim, ffn = scale.dim, scale.ffn
        shapes = {"qkv": (3 * dim, dim), "up": (ffn, dim), "down": (dim, ffn)} | dict.fromkeys(("o", "cross_q", "cross_o"), (dim, dim))
        self.weights = {name: scale.normal(*shape) / shape[1] ** 0.5 for name, shape in shapes.items()}
        self.weights8 = {name: quantize_reference(weight, False) for name, weight in self.weights.items()}
        self.norms = [scale.normal(dim) for _ in range(5)]  # of q, of k, of the cross query, and the affine norm's two

    def linear(self, name: str, x: Tensor, row_scale: Tensor | None, implementation: Any, fp8: bool, gelu: bool) -> Tensor:
        """[B, N, K] to [B, N, width]; GELU, if asked, on the way in. With row_scale, x is in 8 bits already."""
        if not fp8:
            return F.linear(F.gelu(x, approximate="tanh") if gelu else x, self.weights[name].to(x.dtype))
        if row_scale is None:
            rows = quantize_rows(x.flatten(0, 1), gelu=gelu, implementation=implementation)
        else:
            rows = x.flatten(0, 1), row_scale.flatten()
        return fp8_linear(*rows, *self.weights8[name]).unflatten(0, x.shape[:2])

    def forward(self, x: Tensor, m: Tensor, rope: Tensor, position: Tensor, slot: Tensor, k: Tensor, v: Tensor, *told: Tensor,
                implementation: Any, fp8: bool = False) -> Tensor:  # fmt: skip
        """x [B, N, D] after the block; m [B, T, 6, D]; k and v the rings, one after the other; told: text, image and audio keys."""
        chosen, heads, size = {"implementation": implementation}, self.scale.heads, self.scale.frame_tokens
        norm_q, norm_k, norm_cross, weight, bias = (n.to(x.dtype) for n in self.norms)
        m0, m1, m2, m3, m4, m5 = m.unbind(2)
        ring = WINDOW_FRAMES * size
        sessions = [Session(x.shape[1], i * ring, ring, 0, ring) for i in range(len(x))]

        def linear(name: str, x: Tensor, row_scale: Tensor | None = None, gelu: bool = False) -> Tensor:
            return self.linear(name, x, row_scale, implementation, fp8, gelu)

        _, h, factor = residual_gate_norm_modulate(x, scale=m1, shift=m0, fp8=fp8, **chosen)
        q = qkv_norm_rope_append(linear("qkv", h, factor).flatten(0, 1), norm_q, norm_k, rope, position, slot, k, v, **chosen).q
        y = window_attention(q, k, v, sessions, num_heads=heads, **chosen)
        x, h, factor = residual_gate_norm_modulate(x, linear("o", y.view(x.shape)), m2, weight=weight, bias=bias, fp8=fp8, **chosen)
        q = F.rms_norm(linear("cross_q", h, factor), (x.shape[-1],), norm_cross, 1e-6)
        y = cross_attention(q, told[:2], told[2:4], told[4:6], num_heads=heads, **chosen)
        x, h, factor = residual_gate_norm_modulate(x, linear("cross_o", y), scale=m4, shift=m3, fp8=fp8, **chosen)
        return residual_gate_norm_modulate(x, linear("down", linear("up", h, factor), gelu=True), m5, **chosen).x


def block_cases(scale: Scale) -> list[Case]:
    block = Block(scale)
    return [_case(scale, block, batch, fp8) for batch in scale.batches for fp8 in (False, True)]


def _case(scale: Scale, block: Block, batch: int, fp8: bool) -> Case:
    tokens, ring = NEW_FRAMES * scale.frame_tokens, WINDOW_FRAMES * scale.frame_tokens

    def inputs() -> tuple[Tensor, ...]:
        angle = torch.randn(ring, scale.head_dim // 2, device=scale.device)
        row = torch.arange(ring - tokens, ring, device=scale.device, dtype=torch.int32)
        slot = torch.cat([row + i * ring for i in range(batch)])
        rings = [scale.normal(batch * ring, scale.dim) for _ in range(2)]
        told = [scale.normal(batch, n, scale.dim) for n in (scale.text, scale.text, scale.image, scale.image)]
        told += [scale.normal(batch, NEW_FRAMES, scale.audio, scale.dim) for _ in range(2)]
        x, m = scale.normal(batch, tokens, scale.dim), scale.normal(batch, NEW_FRAMES, 6, scale.dim)
        return (x, m, torch.stack((angle.cos(), angle.sin()), dim=-1), row.repeat(batch), slot, *rings, *told)

    def exact(x: Tensor, m: Tensor, rope: Tensor, position: Tensor, slot: Tensor, *rest: Tensor) -> Tensor:
        rings, told = [t[:ring].double() for t in rest[:2]], [t[:1].double() for t in rest[2:]]
        one = (x[:1].double(), m[:1].double(), rope.double(), position[:tokens], slot[:tokens])
        return block.forward(*one, *rings, *told, implementation="reference")

    def with_options(implementation: str, fp8: bool) -> Callable[..., Tensor]:
        return lambda *tensors: block.forward(*tensors, implementation=implementation, fp8=fp8)

    library = with_options("reference", False)
    # "auto": the library's attention where windows are alike, as it would be served.
    candidates = {"ours": with_options("auto", fp8), "eager": library, "compiled": compiled(library, scale)}
    must, stretch = (1.3, 1.5) if fp8 else (1.15, 1.35) if batch == 1 else (1.08, 1.2)
    return Case(
        name=f"block{' fp8' if fp8 else ''} B={batch}", inputs=inputs, candidates=candidates, ours="ours", exact=exact,
        part=lambda out: out[:1].double(), max_error=0.06 if fp8 else 1e-2,
        goals=(Goal("E2" if fp8 else "E1", ("compiled",), must, stretch),),
    )  # fmt: skip
