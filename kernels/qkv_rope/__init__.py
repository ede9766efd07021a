"""From the packed q, k, v row of a new token to a rotated query and a row of the key and value ring, in one pass.

    q = rotate(rms_norm(qkv[:, :D]) * q_weight, rope[position])          returned
    k = rotate(rms_norm(qkv[:, D:2D]) * k_weight, rope[position])        written to k_cache[slot]
    v = qkv[:, 2D:]                                                      written to v_cache[slot]

rms_norm runs over the full width D, across all heads, in float32; rotate turns the channel pairs (2i, 2i + 1) of each head.
Keys are stored rotated at the position given: attention without a mask does not care about the order of keys, so a ring whose
oldest rows are overwritten in place is one dense range, and nothing is ever moved.

With caches in float8_e4m3fn each head of a row of q, k and v is divided by a factor of its own, amax / 448: q's come back with it, those of
keys and values go to k_scale[:, slot] and v_scale[:, slot]. Heads come first in the factors so that attention reads a head's in one piece.

qkv: [M, 3D], M tokens of any number of sessions, contiguous. q_weight, k_weight: [D]. rope: float32 [P, K, 2], cosine and sine of the
K = head_dim / 2 pairs of a head (torch.view_as_real of model.rope's table). position, slot: int32 [M]; slots must differ from each
other, and are not checked on a GPU (that would stall it). k_cache, v_cache: [R, D] in qkv's type or float8_e4m3fn, contiguous.
k_scale, v_scale: float32 [H, R], for 8 bits only, where the Triton kernel needs a head_dim that is a power of two.

Floor: three reads and three writes of M*D elements: 57 MB for 3072 tokens of 1536 in bfloat16, 42 MB to 8 bits.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.dispatch import FLOATS, Implementation, check_contiguous, check_devices, check_dtype, check_shape, choose
from kernels.fp8 import FP8, quantize


class Queries(NamedTuple):
    """q: rotated queries [M, D] in the caches' type; scale: float32 [H, M] if that is 8 bits."""

    q: Tensor
    scale: Tensor | None


def qkv_norm_rope_append(
    qkv: Tensor, q_weight: Tensor, k_weight: Tensor, rope: Tensor, position: Tensor, slot: Tensor, k_cache: Tensor, v_cache: Tensor,
    k_scale: Tensor | None = None, v_scale: Tensor | None = None, *, eps: float = 1e-6, implementation: Implementation = "auto",
) -> Queries:  # fmt: skip
    """The rotated queries; writes M rows of both caches. See the module."""
    tensors = (qkv, q_weight, k_weight, rope, position, slot, k_cache, v_cache, k_scale, v_scale)
    _check(*tensors)
    route = choose(implementation, tensors)
    if route == "operator":
        q, scale = _operator(*tensors, eps)
    else:
        q, scale = _launch(*tensors, eps) if route == "triton" else reference(*tensors, eps)
    return Queries(q, None if k_scale is None else scale)


def reference(
    qkv: Tensor, q_weight: Tensor, k_weight: Tensor, rope: Tensor, position: Tensor, slot: Tensor, k_cache: Tensor, v_cache: Tensor,
    k_scale: Tensor | None, v_scale: Tensor | None, eps: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The formula in torch; float32 inside (float64 for float64). The factors are empty if the caches are not in 8 bits."""
    q, k, v = (t if t.dtype == torch.float64 else t.float() for t in qkv.chunk(3, dim=-1))
    turn, rows = torch.view_as_complex(rope.to(q))[position.long()], slot.long()
    q, k = _norm_rotate(q, q_weight, turn, eps), _norm_rotate(k, k_weight, turn, eps)
    if k_scale is None or v_scale is None:
        k_cache[rows], v_cache[rows] = k.to(k_cache.dtype), v.to(v_cache.dtype)
        return q.to(qkv.dtype), qkv.new_empty(0, dtype=torch.float32)
    for wide, cache, scale in ((k, k_cache, k_scale), (v, v_cache, v_scale)):
        narrow, factor = quantize(wide.unflatten(-1, (len(scale), -1)))
        cache.view(torch.uint8)[rows] = narrow.flatten(1).view(torch.uint8)  # torch indexes no 8-bit floats on a CPU
        scale[:, rows] = factor.t()
    q8, factor = quantize(q.unflatten(-1, (len(k_scale), -1)))
    return q8.flatten(1), factor.t().contiguous()


def _norm_rotate(x_MD: Tensor, weight_D: Tensor, turn_MK: Tensor, eps: float) -> Tensor:
    normed = F.rms_norm(x_MD, (x_MD.shape[-1],), eps=eps) * weight_D.to(x_MD)
    pairs = torch.view_as_complex(normed.unflatten(-1, (-1, turn_MK.shape[-1], 2)))
    return torch.view_as_real(pairs * turn_MK[:, None]).flatten(1)


def _check(
    qkv: Tensor, q_weight: Tensor, k_weight: Tensor, rope: Tensor, position: Tensor, slot: Tensor, k_cache: Tensor, v_cache: Tensor,
    k_scale: Tensor | None, v_scale: Tensor | None,
) -> None:  # fmt: skip
    if qkv.dim() != 2 or qkv.shape[1] % 3:
        raise ValueError(f"qkv must be [M, 3D], got {list(qkv.shape)}")
    tokens, dim = qkv.shape[0], qkv.shape[1] // 3
    if rope.dim() != 3 or rope.shape[2] != 2 or dim % (2 * rope.shape[1]):
        raise ValueError(f"rope must be [P, K, 2] with 2K a divisor of D = {dim}, got {list(rope.shape)}")
    check_devices((qkv, q_weight, k_weight, rope, position, slot, k_cache, v_cache, k_scale, v_scale))
    for name, weight in (("q_weight", q_weight), ("k_weight", k_weight)):
        check_shape(name, weight, (dim,))
    for name, index in (("position", position), ("slot", slot)):
        check_shape(name, index, (tokens,))
        check_dtype(name, index, (torch.int32,))
    if (k_scale is None) != (v_scale is None):
        raise ValueError("give k_scale and v_scale together (caches in 8 bits), or none of them")
    for name, cache, scale in (("k", k_cache, k_scale), ("v", v_cache, v_scale)):
        check_shape(f"{name}_cache", cache, (k_cache.shape[0], dim))
        check_dtype(f"{name}_cache", cache, (qkv.dtype if scale is None else FP8,))
        if scale is not None:
            check_shape(f"{name}_scale", scale, (dim // (2 * rope.shape[1]), k_cache.shape[0]))
            check_dtype(f"{name}_scale", scale, (torch.float32,))


def _launch(
    qkv: Tensor, q_weight: Tensor, k_weight: Tensor, rope: Tensor, position: Tensor, slot: Tensor, k_cache: Tensor, v_cache: Tensor,
    k_scale: Tensor | None, v_scale: Tensor | None, eps: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    from kernels.qkv_rope import triton_impl

    check_dtype("qkv", qkv, FLOATS)
    check_dtype("rope", rope, (torch.float32,))
    named = {"qkv": qkv, "q_weight": q_weight, "k_weight": k_weight, "rope": rope, "position": position, "slot": slot}
    named |= {"k_cache": k_cache, "v_cache": v_cache}
    for name, tensor in (*named.items(), ("k_scale", k_scale), ("v_scale", v_scale)):
        if tensor is not None:
            check_contiguous(name, tensor)
    return triton_impl.launch(qkv, q_weight, k_weight, rope, position, slot, k_cache, v_cache, k_scale, v_scale, eps)


_MUTATED = ("k_cache", "v_cache", "k_scale", "v_scale")


@torch.library.custom_op("livemimic::qkv_norm_rope_append", mutates_args=_MUTATED, device_types="cuda")
def _operator(
    qkv: Tensor, q_weight: Tensor, k_weight: Tensor, rope: Tensor, position: Tensor, slot: Tensor, k_cache: Tensor, v_cache: Tensor,
    k_scale: Tensor | None, v_scale: Tensor | None, eps: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return _launch(qkv, q_weight, k_weight, rope, position, slot, k_cache, v_cache, k_scale, v_scale, eps)


_operator.register_kernel("cpu")(reference)


@_operator.register_fake
def _(
    qkv: Tensor, q_weight: Tensor, k_weight: Tensor, rope: Tensor, position: Tensor, slot: Tensor, k_cache: Tensor, v_cache: Tensor,
    k_scale: Tensor | None, v_scale: Tensor | None, eps: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    q = k_cache.new_empty(qkv.shape[0], qkv.shape[1] // 3)
    return q, qkv.new_empty(0 if k_scale is None else (len(k_scale), len(qkv)), dtype=torch.float32)
