"""Compilation from outside. Inductor takes minutes for the smallest network on a CPU: here its tracing runs, its code does not."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from model.compilation import check_compile, compile_forward
from model.echomimic.causal import CausalDiT, CausalWindow
from model.errors import ConfigError
from tests.model.echomimic.test_causal import network, roll, window

CPU = torch.device("cpu")


def test_a_compiled_transformer_gives_what_it_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    """The anchor's pass and a frame's, keys collected inside of them included, go through the compiled forward."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    plain = roll(window(network("flash")), "flash", 1)
    causal = CausalDiT(network("flash"), 4)
    original = causal.forward
    compile_forward(causal, "on")
    assert causal.forward is not original
    compiled = roll(CausalWindow(causal, window(network("flash"))._window.config), "flash", 1)
    for own, expected in zip(compiled, plain, strict=True):
        torch.testing.assert_close(own, expected, atol=1e-6, rtol=1e-6)


def test_off_changes_nothing() -> None:
    module = nn.Linear(2, 2)
    compile_forward(module, "off")
    assert "forward" not in vars(module)


def test_what_the_machine_cannot_do_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs without a GPU; any compilation without a compiler."""
    with pytest.raises(ConfigError, match="graphs needs a CUDA device"):
        check_compile("graphs", CPU)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match="needs a C\\+\\+ compiler"):
        check_compile("on", CPU)
    check_compile("off", CPU)
