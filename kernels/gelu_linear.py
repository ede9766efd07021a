"""A linear layer with its GELU (tanh form) in the matrix product's own epilogue.

    out = gelu(x @ weight^T + bias)

On CUDA one call of cuBLASLt through torch._addmm_activation, whose GELU is the tanh form there (on a CPU it is the erf form, so that is not
used): the widest tensor of a block is written once instead of written, read and written. There is nothing for a kernel of ours to win.
Elsewhere, and where gradients are needed (the fused call has no derivative), two calls of torch.

x: [..., K]; weight: [N, K]; bias: [N]; out: [..., N]; all of one floating type.

Floor: 2*M*N*K operations for M rows: 85 GFLOP for 3072 rows of 1536 to 8960. The epilogue saves two passes over M*N elements, 110 MB.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.dispatch import check_devices, check_dtype, check_shape


def gelu_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """[..., N]; see the module. torch compiles through it: these are library calls, not an operator of ours."""
    if x.dim() < 1 or weight.dim() != 2 or x.shape[-1] != weight.shape[1]:
        raise ValueError(f"x must be [..., K] and weight [N, K], got {list(x.shape)} and {list(weight.shape)}")
    check_devices((x, weight, bias))
    check_shape("bias", bias, weight.shape[:1])
    for name, tensor in (("weight", weight), ("bias", bias)):
        check_dtype(name, tensor, (x.dtype,))
    gradients = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, weight, bias))
    if x.device.type != "cuda" or gradients:
        return F.gelu(F.linear(x, weight, bias), approximate="tanh")
    return torch._addmm_activation(bias, x.reshape(-1, x.shape[-1]), weight.t(), use_gelu=True).view(*x.shape[:-1], -1)
