"""One program a token: the norm spans all heads, so a row is not shared out; q, k and v are read and written once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.launch import INTERPRETED, TYPE_NAMES, Variant, check_launch

NUM_WARPS = 4


@triton.jit
def _norm_rotate(row_ptr, weight_ptr, cosine, sine, column, inside, eps, DIM: tl.constexpr, BLOCK: tl.constexpr):
    x = tl.load(row_ptr + column, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float32)
    x = x * tl.rsqrt(tl.sum(x * x, axis=0) / DIM + eps) * weight
    real, imaginary = tl.split(tl.reshape(x, (BLOCK // 2, 2)))
    turned = tl.join(real * cosine - imaginary * sine, real * sine + imaginary * cosine)
    return tl.reshape(turned, (BLOCK,))


@triton.jit
def qkv_rope_kernel(
    qkv_ptr, q_weight_ptr, k_weight_ptr, rope_ptr, position_ptr, slot_ptr, q_ptr, k_cache_ptr, v_cache_ptr, eps,
    DIM: tl.constexpr, BLOCK: tl.constexpr, HEAD_DIM: tl.constexpr,
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
    tl.store(q_ptr + token * DIM + column, q.to(q_ptr.dtype.element_ty), mask=inside)
    k = _norm_rotate(row_ptr + DIM, k_weight_ptr, cosine, sine, column, inside, eps, DIM, BLOCK)
    tl.store(k_cache_ptr + slot * DIM + column, k.to(k_cache_ptr.dtype.element_ty), mask=inside)
    v = tl.load(row_ptr + 2 * DIM + column, mask=inside)
    tl.store(v_cache_ptr + slot * DIM + column, v, mask=inside)


def _constants(dim: int, head_dim: int) -> dict[str, int]:
    return {"DIM": dim, "BLOCK": triton.next_power_of_2(dim), "HEAD_DIM": head_dim}


def launch(
    qkv: Tensor, q_weight: Tensor, k_weight: Tensor, rope: Tensor, position: Tensor, slot: Tensor, k_cache: Tensor, v_cache: Tensor,
    eps: float,
) -> Tensor:  # fmt: skip
    """Arguments already checked; see the package."""
    tensors = (qkv, q_weight, k_weight, rope, position, slot)
    check_launch(*tensors, k_cache, v_cache)
    tokens, dim = qkv.shape[0], qkv.shape[1] // 3
    q = qkv.new_empty(tokens, dim)
    qkv_rope_kernel[(tokens,)](*tensors, q, k_cache, v_cache, eps, **_constants(dim, 2 * rope.shape[1]), num_warps=NUM_WARPS)
    return q


def shipped() -> list[Variant]:
    if INTERPRETED:
        raise RuntimeError("compiling needs the interpreter off")
    variants = []
    for dtype in (torch.bfloat16, torch.float16):
        element = f"*{TYPE_NAMES[dtype]}"
        types = {"qkv_ptr": element, "q_weight_ptr": element, "k_weight_ptr": element, "rope_ptr": "*fp32", "position_ptr": "*i32"}
        types |= {"slot_ptr": "*i32", "q_ptr": element, "k_cache_ptr": element, "v_cache_ptr": element, "eps": "fp32"}
        variants.append(
            Variant(
                name=f"qkv_rope {element[1:]}", kernel=qkv_rope_kernel, types=types, constants=_constants(1536, 128),
                num_warps=NUM_WARPS, num_stages=3,
            )
        )  # fmt: skip
    return variants
