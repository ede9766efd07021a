"""From the packed q, k, v row of a new token to a rotated query and a row of the key and value ring, in one pass.

    q = rotate(rms_norm(qkv[:, :D]) * q_weight, rope[position])          returned
    k = rotate(rms_norm(qkv[:, D:2D]) * k_weight, rope[position])        written to k_cache[slot]
    v = qkv[:, 2D:]                                                      written to v_cache[slot]

rms_norm runs over the full width D, across all heads, in float32; rotate turns the channel pairs (2i, 2i + 1) of each head.
Keys are stored rotated at the position given: attention without a mask does not care about the order of keys, so a ring whose
oldest rows are overwritten in place is one dense range, and nothing is ever moved.

qkv: [M, 3D], M tokens of any number of sessions, contiguous. q_weight, k_weight: [D]. rope: float32 [P, K, 2], cosine and sine of the
K = head_dim / 2 pairs of a head (torch.view_as_real of model.rope's table). position, slot: int32 [M]; slots must differ from each
other, and are not checked on a GPU (that would stall it). k_cache, v_cache: [R, D] in qkv's type, contiguous.

Floor: three reads and three writes of M*D elements: 57 MB for 3072 tokens of 1536 in bfloat16.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.dispatch import FLOATS, Implementation, check_contiguous, check_devices, check_dtype, check_shape, choose


def qkv_norm_rope_append(
    qkv: Tensor, q_weight: Tensor, k_weight: Tensor, rope: Tensor, position: Tensor, slot: Tensor, k_cache: Tensor, v_cache: Tensor,
    *, eps: float = 1e-6, implementation: Implementation = "auto",
) -> Tensor:  # fmt: skip
    """The rotated queries [M, D]; writes M rows of both caches. See the module."""
    tensors = (qkv, q_weight, k_weight, rope, position, slot, k_cache, v_cache)
    _check(*tensors)
    route = choose(implementation, tensors)
    if route == "operator":
        return _operator(*tensors, eps)
    return _launch(*tensors, eps) if route == "triton" else reference(*tensors, eps)


def reference(
    qkv: Tensor, q_weight: Tensor, k_weight: Tensor, rope: Tensor, position: Tensor, slot: Tensor, k_cache: Tensor, v_cache: Tensor,
    eps: float,
) -> Tensor:  # fmt: skip
    """The formula in torch; float32 inside (float64 for float64)."""
    q, k, v = qkv.chunk(3, dim=-1)
    turn = torch.view_as_complex(rope.to(torch.float64 if qkv.dtype == torch.float64 else torch.float32))[position.long()]
    k_cache[slot.long()] = _norm_rotate(k, k_weight, turn, eps)
    v_cache[slot.long()] = v
    return _norm_rotate(q, q_weight, turn, eps)


def _norm_rotate(x_MD: Tensor, weight_D: Tensor, turn_MK: Tensor, eps: float) -> Tensor:
    wide = x_MD if x_MD.dtype == torch.float64 else x_MD.float()
    normed = F.rms_norm(wide, (x_MD.shape[-1],), eps=eps) * weight_D.to(wide)
    pairs = torch.view_as_complex(normed.unflatten(-1, (-1, turn_MK.shape[-1], 2)))
    return torch.view_as_real(pairs * turn_MK[:, None]).flatten(1).to(x_MD.dtype)


def _check(
    qkv: Tensor, q_weight: Tensor, k_weight: Tensor, rope: Tensor, position: Tensor, slot: Tensor, k_cache: Tensor, v_cache: Tensor
) -> None:
    if qkv.dim() != 2 or qkv.shape[1] % 3:
        raise ValueError(f"qkv must be [M, 3D], got {list(qkv.shape)}")
    tokens, dim = qkv.shape[0], qkv.shape[1] // 3
    if rope.dim() != 3 or rope.shape[2] != 2 or dim % (2 * rope.shape[1]):
        raise ValueError(f"rope must be [P, K, 2] with 2K a divisor of D = {dim}, got {list(rope.shape)}")
    check_devices((qkv, q_weight, k_weight, rope, position, slot, k_cache, v_cache))
    for name, weight in (("q_weight", q_weight), ("k_weight", k_weight)):
        check_shape(name, weight, (dim,))
    for name, index in (("position", position), ("slot", slot)):
        check_shape(name, index, (tokens,))
        check_dtype(name, index, (torch.int32,))
    for name, cache in (("k_cache", k_cache), ("v_cache", v_cache)):
        check_shape(name, cache, (k_cache.shape[0], dim))
        check_dtype(name, cache, (qkv.dtype,))


def _launch(
    qkv: Tensor, q_weight: Tensor, k_weight: Tensor, rope: Tensor, position: Tensor, slot: Tensor, k_cache: Tensor, v_cache: Tensor,
    eps: float,
) -> Tensor:  # fmt: skip
    from kernels.qkv_rope import triton_impl

    check_dtype("qkv", qkv, FLOATS)
    check_dtype("rope", rope, (torch.float32,))
    named = {"qkv": qkv, "q_weight": q_weight, "k_weight": k_weight, "rope": rope, "position": position, "slot": slot}
    for name, tensor in (named | {"k_cache": k_cache, "v_cache": v_cache}).items():
        check_contiguous(name, tensor)
    return triton_impl.launch(qkv, q_weight, k_weight, rope, position, slot, k_cache, v_cache, eps)


@torch.library.custom_op("livemimic::qkv_norm_rope_append", mutates_args=("k_cache", "v_cache"), device_types="cuda")
def _operator(
    qkv: Tensor, q_weight: Tensor, k_weight: Tensor, rope: Tensor, position: Tensor, slot: Tensor, k_cache: Tensor, v_cache: Tensor,
    eps: float,
) -> Tensor:  # fmt: skip
    return _launch(qkv, q_weight, k_weight, rope, position, slot, k_cache, v_cache, eps)


_operator.register_kernel("cpu")(reference)


@_operator.register_fake
def _(
    qkv: Tensor, q_weight: Tensor, k_weight: Tensor, rope: Tensor, position: Tensor, slot: Tensor, k_cache: Tensor, v_cache: Tensor,
    eps: float,
) -> Tensor:  # fmt: skip
    return qkv.new_empty(qkv.shape[0], qkv.shape[1] // 3)
