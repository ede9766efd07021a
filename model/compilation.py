"""`torch.compile` and CUDA graphs around a transformer's forward, from outside: no module knows of it.

Graphs are those of torch.compile's "reduce-overhead". Shapes of a live session never change, so each is compiled once.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from typing import Any

import torch
from torch import Tensor, nn

from model.errors import ConfigError
from model.presets import Compile

_COMPILERS = ("c++", "g++", "clang++")


def check_compile(how: Compile, device: torch.device) -> None:
    """Raises ConfigError where this machine cannot do it."""
    if how == "graphs" and device.type != "cuda":
        raise ConfigError("no_gpu", f"--compile graphs needs a CUDA device, this is {device.type}", "Use --compile on.")
    if how != "off" and device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise ConfigError("compiler_missing", "torch.compile needs triton on a GPU", "Install 'livemimic[gpu]', or leave --compile out.")
    named = os.environ.get("CXX")
    if how != "off" and device.type == "cpu" and not any(shutil.which(name) for name in ((named,) if named else _COMPILERS)):
        raise ConfigError("compiler_missing", "torch.compile needs a C++ compiler on a CPU", "Install g++, or leave --compile out.")


def compile_forward(module: nn.Module, how: Compile) -> None:
    """Replaces the module's forward by the compiled one. The first calls of each shape take minutes."""
    if how == "off":
        return
    compiled = torch.compile(module.forward, dynamic=False, mode="reduce-overhead" if how == "graphs" else None)

    def forward(*args: Any, **kwargs: Any) -> Tensor:
        if how == "on":
            return compiled(*args, **kwargs)
        # A graph's next run overwrites what the last one returned.
        torch.compiler.cudagraph_mark_step_begin()
        return compiled(*args, **kwargs).clone()

    module.forward = forward  # type: ignore[method-assign]

