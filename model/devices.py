"""Which device and which precision: the one place that decides."""

from __future__ import annotations

import ctypes
import sys

import torch

from model.errors import ConfigError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc


def choose_device(name: str) -> torch.device:
    """`auto` takes a GPU when torch sees one; an explicit `cuda` without one is an error, never a silent fallback."""
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError("unknown_device", f"device {name!r} is not known", "Use auto, cpu or cuda.")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("no_gpu", "torch sees no CUDA device", "Install a CUDA build of torch, or use --device cpu.")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


def working_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it, twice as fast as float32; emulated by a CPU it is ten times slower."""
    capabilities = torch.cpu.get_capabilities()
    fast = device.type == "cuda" or capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if fast else torch.float32


def keep_freed_memory() -> None:
    """Tells glibc to reuse what tensors free instead of giving it back to the system; nothing elsewhere. For the whole process.

    A picture's tensor is megabytes, and by default each one is mapped, zeroed page by page, and unmapped again: a third of the
    decoder's time on a CPU.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
