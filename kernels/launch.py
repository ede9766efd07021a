"""What all Triton implementations share: where they may run, and what ships compiled. Imports triton, so it is imported late.

Every `triton_impl` module has DEFAULTS, launch parameters by case, PARAMETERS, those of the device at hand (see kernels.tuning), and
`variants(case, parameters)`, the compilations that ship with them.

In the interpreter (TRITON_INTERPRET=1 before triton's first import) kernels run on CPU tensors, for tests. Its bfloat16 is wrong
without an error, so that is refused rather than compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

INTERPRETED = bool(triton.knobs.runtime.interpret)
TYPE_NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.float8_e4m3fn: "fp8e4nv"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One compilation that ships: types are Triton's names by argument, in the order of the kernel's arguments."""

    name: str
    kernel: Any
    types: dict[str, str]
    constants: dict[str, Any]  # num_warps and num_stages among them, where they are not Triton's own defaults
    tensor_cores: bool = False


def check_launch(*tensors: Tensor | None) -> None:
    """Triton launches on the current CUDA device, wherever tensors are, so they must be there; in the interpreter, on a CPU."""
    for tensor in tensors:
        if tensor is None:
            continue
        if tensor.device.type != ("cpu" if INTERPRETED else "cuda"):
            where = "CPU tensors (the interpreter is on)" if INTERPRETED else "CUDA tensors"
            raise ValueError(f"the Triton implementation takes {where}, got {tensor.device}")
        if not INTERPRETED and tensor.device.index != torch.cuda.current_device():
            raise ValueError(f"tensors must be on the current device, {torch.cuda.current_device()}, got {tensor.device}")
        if INTERPRETED and tensor.dtype == torch.bfloat16:
            raise TypeError("Triton's interpreter computes bfloat16 wrongly; it is supported for float32 and float16 only")
