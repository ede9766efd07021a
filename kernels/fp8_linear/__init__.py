"""Linear layers in 8 bits: rows to float8_e4m3fn with a factor each, and the product that takes the factors back out.

    quantize_rows:  s = max |f(x)| / 448 of a row,  x8 = f(x) / s          f is the identity, or GELU (tanh form)
    fp8_linear:     out = (x8 @ weight8^T) * row_scale[:, None] * weight_scale[None, :] + bias

The product is torch._scaled_mm (cuBLASLt or CUTLASS): there is nothing for a hand-written one to win. What is to win is the way there. The
input of the first layer leaves residual_gate_norm_modulate in 8 bits already; the GELU between two layers is computed on the way to
the second one's 8 bits, so that the widest tensor of the block is read once and written in a quarter of float32's bytes. A weight
is quantised by the same function: a row of it is an output channel.

x: [M, K]; x8, weight8: float8_e4m3fn [M, K], [N, K]; row_scale, weight_scale: float32 [M], [N]; bias: [N] in out's type; out: bfloat16
[M, N]. On a GPU K and N are multiples of 16, and the device has 8-bit tensor cores (sm_89 or newer); torch checks both.

Floor of quantize_rows: three bytes an element of 16 bits: 82 MB for 3072 rows of 8960. Of fp8_linear: 2*M*N*K operations.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.dispatch import FLOATS, Implementation, check_contiguous, check_devices, check_dtype, check_shape, choose
from kernels.fp8 import FP8, quantize


def quantize_rows(x: Tensor, *, gelu: bool = False, implementation: Implementation = "auto") -> tuple[Tensor, Tensor]:
    """x [M, K], through GELU if asked, as float8_e4m3fn and its factors [M]. See the module."""
    if x.dim() != 2 or not x.shape[1]:
        raise ValueError(f"x must be [M, K] with K at least 1, got {list(x.shape)}")
    route = choose(implementation, (x,))
    if route == "operator":
        return _operator(x, gelu)
    return _launch(x, gelu) if route == "triton" else reference(x, gelu)


def reference(x: Tensor, gelu: bool) -> tuple[Tensor, Tensor]:
    """The formula in torch; float32 inside (float64 for float64)."""
    wide = x if x.dtype == torch.float64 else x.float()
    if gelu:
        wide = F.gelu(wide, approximate="tanh")
    return quantize(wide)


def fp8_linear(x8: Tensor, row_scale: Tensor, weight8: Tensor, weight_scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """bfloat16 [M, N]; see the module. torch compiles through it: this is a library call, not an operator of ours."""
    if x8.dim() != 2 or weight8.dim() != 2 or x8.shape[1] != weight8.shape[1]:
        raise ValueError(f"x8 must be [M, K] and weight8 [N, K], got {list(x8.shape)} and {list(weight8.shape)}")
    check_devices((x8, row_scale, weight8, weight_scale, bias))
    for name, tensor, scale in (("x8", x8, row_scale), ("weight8", weight8, weight_scale)):
        check_dtype(name, tensor, (FP8,))
        check_contiguous(name, tensor)
        check_dtype(f"the factors of {name}", scale, (torch.float32,))
        check_shape(f"the factors of {name}", scale, tensor.shape[:1])
    if bias is not None:
        check_shape("bias", bias, weight8.shape[:1])
        check_dtype("bias", bias, (torch.bfloat16,))
    factors = {"scale_a": row_scale.unsqueeze(1), "scale_b": weight_scale.unsqueeze(0)}
    return torch._scaled_mm(x8, weight8.t(), **factors, bias=bias, out_dtype=torch.bfloat16, use_fast_accum=True)


def _launch(x: Tensor, gelu: bool) -> tuple[Tensor, Tensor]:
    from kernels.fp8_linear import triton_impl

    check_dtype("x", x, FLOATS)
    check_contiguous("x", x)
    return triton_impl.launch(x, gelu)


@torch.library.custom_op("livemimic::quantize_rows", mutates_args=(), device_types="cuda")
def _operator(x: Tensor, gelu: bool) -> tuple[Tensor, Tensor]:
    return _launch(x, gelu)


_operator.register_kernel("cpu")(reference)


@_operator.register_fake
def _(x: Tensor, gelu: bool) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape, dtype=FP8), x.new_empty(x.shape[0], dtype=torch.float32)
