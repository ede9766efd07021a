"""Residual, gate, layer norm and modulation between two parts of a block, in one pass over the row.

    x' = x + y * gate           (without y: x' = x; without gate: x' = x + y)
    h  = norm(x') * (1 + scale) + shift        or       norm(x') * weight + bias

norm is the layer norm without parameters over D, statistics in float32; scale, shift and gate are per latent frame.
With `fp8`, h is float8_e4m3fn and comes with a float32 factor a row, amax / 448, for a row-wise scaled matrix product.

x, y, x', h: [B, N, D], token-major, contiguous. gate, scale, shift: [B, T, D], N a multiple of T, last dimension contiguous (so
views of one [B, T, 6, D] will do). weight, bias: [D].

Floor: x, y read once, x', h written once: 4 * B*N*D elements, 38 MB for 3072 tokens of 1536 in bfloat16.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.dispatch import FLOATS, Implementation, check_contiguous, check_devices, check_dtype, check_shape, choose
from kernels.fp8 import FP8, quantize


class Normed(NamedTuple):
    """x: what the residual stream goes on with; h: what the next part reads; row_scale [B, N] float32 if h is fp8."""

    x: Tensor
    h: Tensor
    row_scale: Tensor | None


def residual_gate_norm_modulate(
    x: Tensor, y: Tensor | None = None, gate: Tensor | None = None, *, scale: Tensor | None = None, shift: Tensor | None = None,
    weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-6, fp8: bool = False,
    implementation: Implementation = "auto",
) -> Normed:  # fmt: skip
    """See the module. Give scale and shift, or weight and bias, or none of them. With y, a new x' is returned; x stays as it is."""
    tensors = (x, y, gate, scale, shift, weight, bias)
    _check(*tensors)
    route = choose(implementation, tensors)
    if route == "operator":
        out, h, row_scale = _operator(*tensors, eps, fp8)
    elif route == "triton":
        out, h, row_scale = _launch(*tensors, eps, fp8)
    else:
        out, h, row_scale = reference(*tensors, eps, fp8)
    return Normed(x if y is None else out, h, row_scale if fp8 else None)


def reference(
    x: Tensor, y: Tensor | None, gate: Tensor | None, scale: Tensor | None, shift: Tensor | None, weight: Tensor | None,
    bias: Tensor | None, eps: float, fp8: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The formula in torch; float32 inside (float64 for float64). Returns empty tensors for what was not asked for."""
    wide = x if x.dtype == torch.float64 else x.float()
    if y is not None:
        wide = wide + y.to(wide) if gate is None else _scaled_sum(wide, y.to(wide), gate.to(wide))
    h = F.layer_norm(wide, (x.shape[-1],), None if weight is None else weight.to(wide), None if bias is None else bias.to(wide), eps)
    if scale is not None and shift is not None:
        h = _scaled_sum(shift.to(wide), h, 1 + scale.to(wide))
    out = x.new_empty(0) if y is None else wide.to(x.dtype)
    if not fp8:
        return out, h.to(x.dtype), x.new_empty(0, dtype=torch.float32)
    return out, *quantize(h)


def _scaled_sum(x: Tensor, y_BND: Tensor, m_BTD: Tensor) -> Tensor:
    """x + y * m, where what has a row a latent frame gives it to each token of the frame; nothing is repeated."""
    frames = m_BTD.shape[1]
    if frames == 1:
        return torch.addcmul(x, y_BND, m_BTD)
    return torch.addcmul(*(t.unflatten(1, (frames, -1)) for t in (x, y_BND, m_BTD))).flatten(1, 2)


def _check(
    x: Tensor, y: Tensor | None, gate: Tensor | None, scale: Tensor | None, shift: Tensor | None, weight: Tensor | None, bias: Tensor | None
) -> None:
    if x.dim() != 3:
        raise ValueError(f"x must be [B, N, D], got {list(x.shape)}")
    if (scale is None) != (shift is None) or (weight is None) != (bias is None) or (scale is not None and weight is not None):
        raise ValueError("give scale and shift together, or weight and bias together, or none of them")
    if gate is not None and y is None:
        raise ValueError("gate needs y, the tensor that it scales")
    check_devices((x, y, gate, scale, shift, weight, bias))
    if y is not None:
        check_shape("y", y, x.shape)
        check_dtype("y", y, (x.dtype,))
    for name, m in (("gate", gate), ("scale", scale), ("shift", shift)):
        if m is not None and (m.dim() != 3 or m.shape[0] != x.shape[0] or m.shape[2] != x.shape[2] or x.shape[1] % m.shape[1]):
            raise ValueError(f"{name} must be [{x.shape[0]}, T, {x.shape[2]}] with T a divisor of {x.shape[1]}, got {list(m.shape)}")
    if len({m.shape[1] for m in (gate, scale, shift) if m is not None}) > 1:
        raise ValueError("gate, scale and shift must have the same number of latent frames")
    for name, m in (("weight", weight), ("bias", bias)):
        if m is not None:
            check_shape(name, m, x.shape[2:])


def _launch(
    x: Tensor, y: Tensor | None, gate: Tensor | None, scale: Tensor | None, shift: Tensor | None, weight: Tensor | None,
    bias: Tensor | None, eps: float, fp8: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    from kernels.residual_norm import triton_impl

    check_dtype("x", x, FLOATS)
    for name, tensor in (("x", x), ("y", y), ("weight", weight), ("bias", bias)):
        if tensor is not None:
            check_contiguous(name, tensor)
    for name, m in (("gate", gate), ("scale", scale), ("shift", shift)):
        if m is not None and m.stride(-1) != 1:
            raise ValueError(f"{name} must be contiguous in its last dimension, got strides {m.stride()}")
    return triton_impl.launch(x, y, gate, scale, shift, weight, bias, eps, fp8)


@torch.library.custom_op("livemimic::residual_gate_norm_modulate", mutates_args=(), device_types="cuda")
def _operator(
    x: Tensor, y: Tensor | None, gate: Tensor | None, scale: Tensor | None, shift: Tensor | None, weight: Tensor | None,
    bias: Tensor | None, eps: float, fp8: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return _launch(x, y, gate, scale, shift, weight, bias, eps, fp8)


_operator.register_kernel("cpu")(reference)


@_operator.register_fake
def _(
    x: Tensor, y: Tensor | None, gate: Tensor | None, scale: Tensor | None, shift: Tensor | None, weight: Tensor | None,
    bias: Tensor | None, eps: float, fp8: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    out = x.new_empty(0) if y is None else torch.empty_like(x)
    return out, torch.empty_like(x, dtype=FP8 if fp8 else x.dtype), x.new_empty(x.shape[:2] if fp8 else 0, dtype=torch.float32)
