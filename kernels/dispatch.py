"""Which implementation of an operation runs: a few rules, no registry.

Every operation has a torch reference and a Triton implementation, and is registered as a custom operator whose CUDA kernel is the
one and whose CPU kernel is the other. `auto` means that operator, or on a CPU, unless torch compiles, what it would call anyway; the
other two names call an implementation directly.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

Implementation = Literal["auto", "reference", "triton"]
Route = Literal["operator", "reference", "triton"]
FLOATS = (torch.float32, torch.float16, torch.bfloat16)

log = logging.getLogger(__name__)


# Whether the extra `livemimic[gpu]` is installed; looked up here, as torch.compile cannot trace the search.
HAS_TRITON = find_spec("triton") is not None


@cache
def _say_that_triton_is_missing() -> None:
    log.warning("triton is not installed: kernels run as plain torch; pip install 'livemimic[gpu]'")


def choose(implementation: Implementation, tensors: Sequence[Tensor | None]) -> Route:
    """The route of one call. The operators have no backward pass, so what needs gradients takes the reference."""
    if implementation not in ("auto", "reference", "triton"):
        raise ValueError(f"implementation must be auto, reference or triton, got {implementation!r}")
    if implementation != "auto":
        return implementation
    given = [tensor for tensor in tensors if tensor is not None]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given):
        return "reference"
    device = given[0].device.type
    if device == "cpu":
        return "operator" if torch.compiler.is_compiling() else "reference"
    if device == "cuda" and HAS_TRITON:
        return "operator"
    if device == "cuda" and not torch.compiler.is_compiling():
        _say_that_triton_is_missing()
    return "reference"


def check_shape(name: str, tensor: Tensor, shape: Sequence[int]) -> None:
    if tuple(tensor.shape) != tuple(shape):
        raise ValueError(f"{name} must be {list(shape)}, got {list(tensor.shape)}")


def check_dtype(name: str, tensor: Tensor, allowed: Sequence[torch.dtype]) -> None:
    if tensor.dtype not in allowed:
        raise TypeError(f"{name} must be one of {', '.join(map(str, allowed))}, got {tensor.dtype}")


def check_contiguous(name: str, tensor: Tensor) -> None:
    if not tensor.is_contiguous():
        raise ValueError(f"{name} must be contiguous, got strides {tensor.stride()} for shape {list(tensor.shape)}")


def check_devices(tensors: Sequence[Tensor | None]) -> None:
    devices = {tensor.device for tensor in tensors if tensor is not None}
    if len(devices) > 1:
        raise ValueError(f"all tensors must be on one device, got {', '.join(sorted(map(str, devices)))}")
