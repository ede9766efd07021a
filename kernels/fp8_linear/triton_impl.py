"""One program a row, which stays in registers between finding its largest value and dividing by it."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.fp8 import FP8
from kernels.launch import TYPE_NAMES, Variant, check_launch
from kernels.tuning import Parameters, parameters

MAX_WIDTH, WIDE = 16384, 4096
# As many warps as leave 32 values to a thread of a wide row, 16 to one of a narrow row.
DEFAULTS: dict[str, Parameters] = {"narrow rows": {"num_warps": 4}, "wide rows": {"num_warps": 16}}
PARAMETERS = parameters("fp8_linear", DEFAULTS)


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


def _case(dim: int) -> str:
    return "wide rows" if dim > WIDE else "narrow rows"


def launch(x: Tensor, gelu: bool) -> tuple[Tensor, Tensor]:
    """Arguments already checked; see the package."""
    check_launch(x)
    rows, dim = x.shape
    if dim > MAX_WIDTH:
        raise ValueError(f"rows of up to {MAX_WIDTH} elements are supported, got {dim}")
    out, scale = torch.empty_like(x, dtype=FP8), x.new_empty(rows, dtype=torch.float32)
    quantize_kernel[(rows,)](x, out, scale, DIM=dim, BLOCK=triton.next_power_of_2(dim), GELU=gelu, **PARAMETERS[_case(dim)])
    return out, scale


def variants(case: str, chosen: Parameters) -> list[Variant]:
    """The inputs of both layers of the 1536-wide model's feed-forward part, and of its other layers."""
    found = []
    for dim, gelu in ((1536, False), (8960, False), (8960, True)):
        if _case(dim) != case:
            continue
        for element in (TYPE_NAMES[dtype] for dtype in (torch.bfloat16, torch.float16, torch.float32)):
            types = {"x_ptr": f"*{element}", "out_ptr": "*fp8e4nv", "scale_ptr": "*fp32"}
            constants = {"DIM": dim, "BLOCK": triton.next_power_of_2(dim), "GELU": gelu} | chosen
            name = f"quantize {element} {dim}{' gelu' if gelu else ''}"
            found.append(Variant(name=name, kernel=quantize_kernel, types=types, constants=constants))
    return found
