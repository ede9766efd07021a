"""One program a token: the norm spans all heads, so a row is not shared out; q, k and v are read and written once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.fp8 import FP8
from kernels.launch import TYPE_NAMES, Variant, check_launch
from kernels.tuning import Parameters, parameters

DEFAULTS: dict[str, Parameters] = {"row": {"num_warps": 4}, "row to fp8": {"num_warps": 4}}
PARAMETERS = parameters("qkv_rope", DEFAULTS)


@triton.jit
def _norm_rotate(row_ptr, weight_ptr, cosine, sine, column, inside, eps, DIM: tl.constexpr, BLOCK: tl.constexpr):
    x = tl.load(row_ptr + column, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float32)
    x = x * tl.rsqrt(tl.sum(x * x, axis=0) / DIM + eps) * weight
    real, imaginary = tl.split(tl.reshape(x, (BLOCK // 2, 2)))
    turned = tl.join(real * cosine - imaginary * sine, real * sine + imaginary * cosine)
    return tl.reshape(turned, (BLOCK,))


@triton.jit
def _store(
    x, ptr, scale_ptr, scale_stride, column, inside, DIM: tl.constexpr, BLOCK: tl.constexpr, HEAD_DIM: tl.constexpr, FP8: tl.constexpr
):
    """A row as it is, or in 8 bits with a factor a head, scale_stride apart."""
    if FP8:
        heads = tl.reshape(x, (BLOCK // HEAD_DIM, HEAD_DIM))
        scale = tl.maximum(tl.max(tl.abs(heads), axis=1), 1e-12) / 448.0
        head = tl.arange(0, BLOCK // HEAD_DIM)
        tl.store(scale_ptr + head * scale_stride, scale, mask=head < DIM // HEAD_DIM)
        x = tl.reshape(heads / scale[:, None], (BLOCK,))
    tl.store(ptr + column, x.to(ptr.dtype.element_ty), mask=inside)


@triton.jit
def qkv_rope_kernel(
    qkv_ptr, q_weight_ptr, k_weight_ptr, rope_ptr, position_ptr, slot_ptr, q_ptr, k_cache_ptr, v_cache_ptr, q_scale_ptr, k_scale_ptr,
    v_scale_ptr, num_tokens, num_rows, eps, DIM: tl.constexpr, BLOCK: tl.constexpr, HEAD_DIM: tl.constexpr, FP8: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    position = tl.load(position_ptr + token).to(tl.int64)
    slot = tl.load(slot_ptr + token).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < DIM
    row_ptr = qkv_ptr + token * 3 * DIM
    # One table row serves every head; loaded in channel order so that cosine and sine split like the channels they turn.
    table = tl.load(rope_ptr + position * HEAD_DIM + column % HEAD_DIM)
    cosine, sine = tl.split(tl.reshape(table, (BLOCK // 2, 2)))
    q = _norm_rotate(row_ptr, q_weight_ptr, cosine, sine, column, inside, eps, DIM, BLOCK)
    _store(q, q_ptr + token * DIM, q_scale_ptr + token, num_tokens, column, inside, DIM, BLOCK, HEAD_DIM, FP8)
    k = _norm_rotate(row_ptr + DIM, k_weight_ptr, cosine, sine, column, inside, eps, DIM, BLOCK)
    _store(k, k_cache_ptr + slot * DIM, k_scale_ptr + slot, num_rows, column, inside, DIM, BLOCK, HEAD_DIM, FP8)
    v = tl.load(row_ptr + 2 * DIM + column, mask=inside, other=0.0)
    _store(v.to(tl.float32), v_cache_ptr + slot * DIM, v_scale_ptr + slot, num_rows, column, inside, DIM, BLOCK, HEAD_DIM, FP8)


def _case(fp8: bool) -> str:
    return "row to fp8" if fp8 else "row"


def _constants(dim: int, head_dim: int, fp8: bool) -> dict[str, int]:
    return {"DIM": dim, "BLOCK": triton.next_power_of_2(dim), "HEAD_DIM": head_dim, "FP8": fp8}


def launch(
    qkv: Tensor, q_weight: Tensor, k_weight: Tensor, rope: Tensor, position: Tensor, slot: Tensor, k_cache: Tensor, v_cache: Tensor,
    k_scale: Tensor | None, v_scale: Tensor | None, eps: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Arguments already checked; see the package."""
    tensors = (qkv, q_weight, k_weight, rope, position, slot)
    check_launch(*tensors, k_cache, v_cache, k_scale, v_scale)
    tokens, dim, head_dim = qkv.shape[0], qkv.shape[1] // 3, 2 * rope.shape[1]
    fp8 = k_scale is not None
    if fp8 and head_dim & (head_dim - 1):
        raise ValueError(f"in 8 bits the width of a head must be a power of two, got {head_dim}")
    q = torch.empty(tokens, dim, dtype=k_cache.dtype, device=qkv.device)
    q_scale = qkv.new_empty((dim // head_dim, tokens) if fp8 else 0, dtype=torch.float32)
    qkv_rope_kernel[(tokens,)](
        *tensors, q, k_cache, v_cache, q_scale, q_scale if k_scale is None else k_scale, q_scale if v_scale is None else v_scale,
        tokens, k_cache.shape[0], eps, **_constants(dim, head_dim, fp8), **PARAMETERS[_case(fp8)],
    )  # fmt: skip
    return q, q_scale


def variants(case: str, chosen: Parameters) -> list[Variant]:
    """The row of the 1536-wide model in both 16-bit types."""
    fp8 = case == _case(True)
    found = []
    for element in (f"*{TYPE_NAMES[dtype]}" for dtype in (torch.bfloat16, torch.float16)):
        types = dict.fromkeys(("qkv_ptr", "q_weight_ptr", "k_weight_ptr"), element) | {"rope_ptr": "*fp32"}
        types |= dict.fromkeys(("position_ptr", "slot_ptr"), "*i32")
        types |= dict.fromkeys(("q_ptr", "k_cache_ptr", "v_cache_ptr"), f"*{TYPE_NAMES[FP8]}" if fp8 else element)
        types |= dict.fromkeys(("q_scale_ptr", "k_scale_ptr", "v_scale_ptr"), "*fp32")
        types |= {"num_tokens": "i32", "num_rows": "i32", "eps": "fp32"}
        name = f"qkv_rope {element[1:]}{' to fp8' if fp8 else ''}"
        found.append(Variant(name=name, kernel=qkv_rope_kernel, types=types, constants=_constants(1536, 128, fp8) | chosen))
    return found
