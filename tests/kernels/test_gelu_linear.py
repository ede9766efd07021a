"""A linear layer with GELU: the CPU's two calls against float64, the call that CUDA gets, and what is refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from kernels.gelu_linear import gelu_linear


class Calls(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.__name__)
        return function(*args, **kwargs or {})


def test_agrees_with_float64(normal, judge) -> None:
    x, weight, bias = normal(2, 5, 12), normal(7, 12), normal(7)
    exact = F.gelu(x.double() @ weight.double().t() + bias.double(), approximate="tanh")
    judge(gelu_linear(x, weight, bias), exact)


def test_cuda_gets_the_epilogue() -> None:
    """On tensors without data: a GPU is not needed to see which call is made."""
    with FakeTensorMode():
        x, weight, bias = (torch.empty(*shape, device="cuda") for shape in ((2, 5, 12), (7, 12), (7,)))
        with Calls() as calls:
            assert gelu_linear(x, weight, bias).shape == (2, 5, 7)
    assert "_addmm_activation.default" in calls.names and "gelu.default" not in calls.names


def test_gradients_reach_the_weight(normal) -> None:
    weight = normal(7, 12).requires_grad_()
    gelu_linear(normal(5, 12), weight, normal(7)).sum().backward()
    assert weight.grad is not None


def test_compiles_as_one_graph(normal) -> None:
    arguments = normal(5, 12), normal(7, 12), normal(7)
    compiled = torch.compile(gelu_linear, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*arguments), gelu_linear(*arguments))


@pytest.mark.parametrize(
    ("index", "change", "error", "words"),
    [
        (0, lambda t: t[:, :5], ValueError, r"weight \[N, K\]"),
        (1, lambda t: t.half(), TypeError, "weight must be one of torch.float32"),
        (2, lambda t: t[:3], ValueError, "bias must be"),
        (2, lambda t: t.to("meta"), ValueError, "one device"),
    ],
)
def test_refuses(index, change, error, words, normal) -> None:
    arguments = [normal(5, 12), normal(7, 12), normal(7)]
    arguments[index] = change(arguments[index])
    with pytest.raises(error, match=words):
        gelu_linear(*arguments)
