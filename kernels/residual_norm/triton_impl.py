"""One program a token row: the row stays in registers between its one read and its one write."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.fp8 import FP8
from kernels.launch import TYPE_NAMES, Variant, check_launch
from kernels.tuning import Parameters, parameters

DEFAULTS: dict[str, Parameters] = {"row": {"num_warps": 4}, "row to fp8": {"num_warps": 4}}
PARAMETERS = parameters("residual_norm", DEFAULTS)


@triton.jit
def residual_norm_kernel(
    x_ptr, y_ptr, gate_ptr, scale_ptr, shift_ptr, out_ptr, h_ptr, row_scale_ptr,
    num_tokens, tokens_per_frame, gate_stride_b, gate_stride_t, scale_stride_b, scale_stride_t, shift_stride_b, shift_stride_t, eps,
    DIM: tl.constexpr, BLOCK: tl.constexpr, HAS_Y: tl.constexpr, HAS_GATE: tl.constexpr, HAS_SCALE: tl.constexpr,
    PLUS_ONE: tl.constexpr, FP8: tl.constexpr,
):  # fmt: skip
    """PLUS_ONE tells a modulation, whose scale is relative to one, from the weight of an affine norm."""
    row = tl.program_id(0).to(tl.int64)
    batch = row // num_tokens
    frame = (row % num_tokens) // tokens_per_frame
    column = tl.arange(0, BLOCK)
    inside = column < DIM
    x = tl.load(x_ptr + row * DIM + column, mask=inside, other=0.0).to(tl.float32)
    if HAS_Y:
        y = tl.load(y_ptr + row * DIM + column, mask=inside, other=0.0).to(tl.float32)
        if HAS_GATE:
            y *= tl.load(gate_ptr + batch * gate_stride_b + frame * gate_stride_t + column, mask=inside, other=0.0).to(tl.float32)
        x += y
        tl.store(out_ptr + row * DIM + column, x.to(out_ptr.dtype.element_ty), mask=inside)
    mean = tl.sum(x, axis=0) / DIM
    centred = tl.where(inside, x - mean, 0.0)
    h = centred * tl.rsqrt(tl.sum(centred * centred, axis=0) / DIM + eps)
    if HAS_SCALE:
        scale = tl.load(scale_ptr + batch * scale_stride_b + frame * scale_stride_t + column, mask=inside, other=0.0).to(tl.float32)
        shift = tl.load(shift_ptr + batch * shift_stride_b + frame * shift_stride_t + column, mask=inside, other=0.0).to(tl.float32)
        if PLUS_ONE:
            scale += 1.0
        h = h * scale + shift
    if FP8:
        row_scale = tl.maximum(tl.max(tl.abs(h), axis=0), 1e-12) / 448.0
        tl.store(row_scale_ptr + row, row_scale)
        h = h / row_scale
    tl.store(h_ptr + row * DIM + column, h.to(h_ptr.dtype.element_ty), mask=inside)


def _case(fp8: bool) -> str:
    return "row to fp8" if fp8 else "row"


def _constants(dim: int, y: bool, gate: bool, scale: bool, plus_one: bool, fp8: bool) -> dict[str, int | bool]:
    flags = {"HAS_Y": y, "HAS_GATE": gate, "HAS_SCALE": scale, "PLUS_ONE": plus_one, "FP8": fp8}
    return {"DIM": dim, "BLOCK": triton.next_power_of_2(dim), **flags}


def launch(
    x: Tensor, y: Tensor | None, gate: Tensor | None, scale: Tensor | None, shift: Tensor | None, weight: Tensor | None,
    bias: Tensor | None, eps: float, fp8: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Arguments already checked; see the package. An affine norm is a modulation whose frames all share one row (stride 0)."""
    check_launch(x, y, gate, scale, shift, weight, bias)
    batch, tokens, dim = x.shape
    frames = next((m.shape[1] for m in (gate, scale) if m is not None), 1)
    mul, add = scale, shift
    if weight is not None and bias is not None:
        mul, add = weight.expand(batch, frames, dim), bias.expand(batch, frames, dim)
    out = x.new_empty(0) if y is None else torch.empty_like(x)
    h = torch.empty_like(x, dtype=FP8 if fp8 else x.dtype)
    row_scale = x.new_empty((batch, tokens) if fp8 else 0, dtype=torch.float32)
    strides = [stride for m in (gate, mul, add) for stride in ((0, 0) if m is None else m.stride()[:2])]
    residual_norm_kernel[(batch * tokens,)](
        x, x if y is None else y, x if gate is None else gate, x if mul is None else mul, x if add is None else add,
        x if y is None else out, h, row_scale, tokens, tokens // frames, *strides, eps,
        **_constants(dim, y is not None, gate is not None, mul is not None, weight is None, fp8), **PARAMETERS[_case(fp8)],
    )  # fmt: skip
    return out, h, row_scale


def variants(case: str, chosen: Parameters) -> list[Variant]:
    """Every place in a block of the 1536-wide model, in both 16-bit types."""
    places = {
        "entry": (False, False, True, True),
        "after_attention": (True, True, True, False),
        "after_cross_attention": (True, False, True, True),
        "after_ffn": (True, True, True, True),
    }
    fp8 = case == _case(True)
    found = []
    for element in (TYPE_NAMES[dtype] for dtype in (torch.bfloat16, torch.float16)):
        for place, flags in places.items():
            types = dict.fromkeys(("x_ptr", "y_ptr", "gate_ptr", "scale_ptr", "shift_ptr", "out_ptr"), f"*{element}")
            types |= {"h_ptr": f"*{'fp8e4nv' if fp8 else element}", "row_scale_ptr": "*fp32"}
            sizes = ("num_tokens", "tokens_per_frame", "gate_stride_b", "gate_stride_t", "scale_stride_b", "scale_stride_t")
            types |= dict.fromkeys((*sizes, "shift_stride_b", "shift_stride_t"), "i32") | {"eps": "fp32"}
            name = f"residual_norm {place} {element}{' to fp8' if fp8 else ''}"
            constants = _constants(1536, *flags, fp8) | chosen
            found.append(Variant(name=name, kernel=residual_norm_kernel, types=types, constants=constants))
    return found
