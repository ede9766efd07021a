"""Attention of new latents over their windows, whose keys and values lie in ring caches; sessions of different lengths in one call.

    out[i] = softmax(q[i] . k[window of i] / sqrt(head_dim)) . v[window of i]          for each head

q, out: [M, D], the new tokens of all sessions one after the other. k_cache, v_cache: [R, D], rows as qkv_norm_rope_append wrote them.
A `Session` says which rows of the caches are its window, oldest first. With `frame_tokens` attention is block-causal: the newest
frame sees the whole window, the one before it all but the newest frame, and so on. All contiguous, D = num_heads * head_dim.

In 8 bits, q and the caches are float8_e4m3fn with `Scales` as qkv_norm_rope_append leaves them, and out is bfloat16. The Triton kernel
then rounds the softmax weights to 8 bits too, times the values' factors relative to the largest of a key block.

Work: 4 * q_len * kv_len * D operations a session: 406 GFLOP for 3072 queries over 21504 keys of 1536. Bytes hardly matter.

Default on a GPU: torch's own attention (cuDNN first) where all windows are alike, which is one dense batch to it; the Triton kernel
for windows of different lengths, wrapped rings and block-causal order, where the library needs a call for each.
In 8 bits torch has no attention, so the kernel runs for all windows.
The Triton kernel needs 16-bit or 8-bit types, head_dim 64 or 128 and windows and frames of whole 64-row tiles. It is
deterministic, but how the keys are split depends on the batch: a session's result in another batch differs by rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from kernels.dispatch import Implementation, check_contiguous, check_devices, check_dtype, check_shape, choose
from kernels.fp8 import FP8
from kernels.window_attention.plan import Session as Session

_LIBRARY = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


class Scales(NamedTuple):
    """What a head of a row in 8 bits is to be multiplied by: float32 [H, M] of the queries, [H, R] of cached keys and values."""

    q: Tensor
    k: Tensor
    v: Tensor


def window_attention(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, sessions: Sequence[Session], *, num_heads: int, frame_tokens: int | None = None,
    scales: Scales | None = None, implementation: Implementation = "auto",
) -> Tensor:  # fmt: skip
    """The attention output [M, D], in q's type (bfloat16 if that is 8 bits). See the module."""
    factors = scales or (None, None, None)
    _check(q, k_cache, v_cache, sessions, num_heads, frame_tokens, factors)
    route = choose(implementation, (q, k_cache, v_cache))
    flat = [number for session in sessions for number in session]
    if route == "operator":
        return _operator(q, k_cache, v_cache, flat, num_heads, frame_tokens, *factors)
    return (_launch if route == "triton" else reference)(q, k_cache, v_cache, flat, num_heads, frame_tokens, *factors)


def reference(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, flat: Sequence[int], num_heads: int, frame_tokens: int | None,
    q_scale: Tensor | None = None, k_scale: Tensor | None = None, v_scale: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """torch's attention: one call where all windows are alike, otherwise one for each session (and frame, if block-causal)."""
    if q_scale is not None and k_scale is not None and v_scale is not None:
        wide = [_dequantize(*pair) for pair in ((q, q_scale), (k_cache, k_scale), (v_cache, v_scale))]
        return reference(wide[0], wide[1], wide[2], flat, num_heads, frame_tokens).bfloat16()
    sessions = unflatten(flat)
    if _alike(sessions) and frame_tokens is None:
        one, count = sessions[0], len(sessions)
        rows = slice(one.ring_row, one.ring_row + count * one.capacity)
        k, v = (cache[rows].unflatten(0, (count, -1))[:, one.first : one.first + one.kv_len] for cache in (k_cache, v_cache))
        return _attend(q.view(count, one.q_len, -1), k, v, num_heads).flatten(0, 1)
    parts, q_row = [], 0
    for session in sessions:
        keys, values = (_window(cache, session) for cache in (k_cache, v_cache))
        step = frame_tokens or session.q_len
        for row in range(0, session.q_len, step):
            seen = session.kv_len - (session.q_len - step - row)
            parts.append(_attend(q[None, q_row + row : q_row + row + step], keys[None, :seen], values[None, :seen], num_heads)[0])
        q_row += session.q_len
    return torch.cat(parts)


def _dequantize(x8_ND: Tensor, scale_HN: Tensor) -> Tensor:
    return (x8_ND.float().unflatten(-1, (len(scale_HN), -1)) * scale_HN.t()[..., None]).flatten(1)


def unflatten(flat: Sequence[int]) -> tuple[Session, ...]:
    """Operators take lists of integers only."""
    return tuple(Session(*flat[i : i + 5]) for i in range(0, len(flat), 5))


def _alike(sessions: tuple[Session, ...]) -> bool:
    """Whether the windows are one dense batch: equally long, in rings that follow each other, none wrapping around its end."""
    one = sessions[0]
    expected = (one._replace(ring_row=one.ring_row + i * one.capacity) for i in range(len(sessions)))
    return tuple(expected) == sessions and one.first + one.kv_len <= one.capacity


def _window(cache_RD: Tensor, session: Session) -> Tensor:
    ring = cache_RD[session.ring_row : session.ring_row + session.capacity]
    end = session.first + session.kv_len
    if end <= session.capacity:
        return ring[session.first : end]
    return torch.cat((ring[session.first :], ring[: end - session.capacity]))


def _attend(q_BND: Tensor, k_BMD: Tensor, v_BMD: Tensor, num_heads: int) -> Tensor:
    q, k, v = (t.unflatten(-1, (num_heads, -1)).transpose(1, 2) for t in (q_BND, k_BMD, v_BMD))
    if q.device.type != "cuda":
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    with sdpa_kernel(_LIBRARY, set_priority=True):
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def _check(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, sessions: Sequence[Session], num_heads: int, frame_tokens: int | None,
    scales: tuple[Tensor | None, Tensor | None, Tensor | None],
) -> None:  # fmt: skip
    if q.dim() != 2 or q.shape[1] % num_heads:
        raise ValueError(f"q must be [M, D] with D a multiple of {num_heads} heads, got {list(q.shape)}")
    check_devices((q, k_cache, v_cache, *scales))
    if (q.dtype == FP8) != (scales[0] is not None):
        raise ValueError(f"scales go with q in {FP8}, and only there; got {'no' if scales[0] is None else 'given'} scales, q in {q.dtype}")
    for name, scale, rows in zip("qkv", scales, (len(q), len(k_cache), len(k_cache)), strict=True):
        if scale is not None:
            check_shape(f"the scales of {name}", scale, (num_heads, rows))
            check_dtype(f"the scales of {name}", scale, (torch.float32,))
    for name, cache in (("k_cache", k_cache), ("v_cache", v_cache)):
        check_shape(name, cache, (k_cache.shape[0], q.shape[1]))
        check_dtype(name, cache, (q.dtype,))
    if not sessions or sum(session.q_len for session in sessions) != q.shape[0]:
        raise ValueError(f"the sessions must have {q.shape[0]} queries together, got {[s.q_len for s in sessions]}")
    for session in sessions:
        q_len, ring_row, capacity, first, kv_len = session
        if not (q_len > 0 and 0 < kv_len <= capacity and 0 <= first < capacity and 0 <= ring_row <= k_cache.shape[0] - capacity):
            raise ValueError(f"a window must lie inside its ring and the ring inside the {k_cache.shape[0]} cache rows, got {session}")
        if frame_tokens is not None and (frame_tokens <= 0 or q_len % frame_tokens or kv_len < q_len):
            raise ValueError(f"block-causal needs whole frames of {frame_tokens} tokens, the queries' own keys included, got {session}")


def _launch(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, flat: Sequence[int], num_heads: int, frame_tokens: int | None,
    q_scale: Tensor | None, k_scale: Tensor | None, v_scale: Tensor | None,
) -> Tensor:  # fmt: skip
    from kernels.window_attention import triton_impl

    named = {"q": q, "k_cache": k_cache, "v_cache": v_cache, "scales.q": q_scale, "scales.k": k_scale, "scales.v": v_scale}
    for name, tensor in named.items():
        if tensor is not None:
            check_contiguous(name, tensor)
    return triton_impl.launch(q, k_cache, v_cache, unflatten(flat), num_heads, frame_tokens, q_scale, k_scale, v_scale)


@torch.library.custom_op("livemimic::window_attention", mutates_args=(), device_types="cuda")
def _operator(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, sessions: Sequence[int], num_heads: int, frame_tokens: int | None,
    q_scale: Tensor | None, k_scale: Tensor | None, v_scale: Tensor | None,
) -> Tensor:  # fmt: skip
    from kernels.window_attention import triton_impl

    library_is_best = _alike(unflatten(sessions)) and frame_tokens is None and q.dtype != FP8
    supported = triton_impl.unsupported(q, unflatten(sessions), num_heads, frame_tokens) is None
    run = _launch if supported and not library_is_best else reference
    return run(q, k_cache, v_cache, sessions, num_heads, frame_tokens, q_scale, k_scale, v_scale)


_operator.register_kernel("cpu")(reference)


@_operator.register_fake
def _(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, sessions: Sequence[int], num_heads: int, frame_tokens: int | None,
    q_scale: Tensor | None, k_scale: Tensor | None, v_scale: Tensor | None,
) -> Tensor:  # fmt: skip
    return q.new_empty(q.shape, dtype=torch.bfloat16 if q.dtype == FP8 else q.dtype)
