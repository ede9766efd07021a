"""One program a row, which stays in registers between finding its largest value and dividing by it."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.launch import INTERPRETED, TYPE_NAMES, Variant, check_launch

MAX_WIDTH = 16384


@triton.jit
def quantize_kernel(x_ptr, out_ptr, scale_ptr, DIM: tl.constexpr, BLOCK: tl.constexpr, GELU: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < DIM
    x = tl.load(x_ptr + row * DIM + column, mask=inside, other=0.0).to(tl.float32)
    if GELU:
        # 0.5 * (1 + tanh(u)) is sigmoid(2u), u = sqrt(2/pi) * (x + 0.044715 x^3).
        x = x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
    scale = tl.maximum(tl.max(tl.abs(x), axis=0), 1e-12) / 448.0
    tl.store(scale_ptr + row, scale)
    tl.store(out_ptr + row * DIM + column, (x / scale).to(out_ptr.dtype.element_ty), mask=inside)


def _meta(dim: int) -> tuple[dict[str, int], int]:
    """Constants, and as many warps as leave 32 values to a thread of a wide row, 16 to one of a narrow row."""
    block = triton.next_power_of_2(dim)
    return {"DIM": dim, "BLOCK": block}, 16 if block > 4096 else 4


def launch(x: Tensor, gelu: bool) -> tuple[Tensor, Tensor]:
    """Arguments already checked; see the package."""
    check_launch(x)
    if x.shape[1] > MAX_WIDTH:
        raise ValueError(f"rows of up to {MAX_WIDTH} elements are supported, got {x.shape[1]}")
    constants, num_warps = _meta(x.shape[1])
    out, scale = torch.empty_like(x, dtype=torch.float8_e4m3fn), x.new_empty(x.shape[0], dtype=torch.float32)
    quantize_kernel[(x.shape[0],)](x, out, scale, **constants, GELU=gelu, num_warps=num_warps)
    return out, scale


def shipped() -> list[Variant]:
    """The inputs of both layers of the 1536-wide model's feed-forward part, and of its other layers."""
    if INTERPRETED:
        raise RuntimeError("compiling needs the interpreter off")
    variants = []
    for dim, gelu in ((1536, False), (8960, False), (8960, True)):
        for element in (TYPE_NAMES[dtype] for dtype in (torch.bfloat16, torch.float16, torch.float32)):
            constants, num_warps = _meta(dim)
            name = f"quantize {element} {dim}{' gelu' if gelu else ''}"
            types = {"x_ptr": f"*{element}", "out_ptr": "*fp8e4nv", "scale_ptr": "*fp32"}
            variants.append(
                Variant(
                    name=name, kernel=quantize_kernel, types=types, constants=constants | {"GELU": gelu}, num_warps=num_warps, num_stages=3
                )
            )
    return variants
