"""Rows to 8 bits and the product of two such matrices: Triton, the library call and the reference, and what is refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from kernels.fp8_linear import FP8, _operator, fp8_linear, quantize_rows


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.usefixtures("interpreted")
def test_triton_agrees_with_the_reference(gelu, dtype, normal) -> None:
    """Factors to float32's precision; values coarsely, as the interpreter's own cast to fp8 is off near powers of two."""
    x = normal(5, 300, dtype=dtype)
    expected, expected_scale = quantize_rows(x, gelu=gelu, implementation="reference")
    actual, scale = quantize_rows(x, gelu=gelu, implementation="triton")
    torch.testing.assert_close(scale, expected_scale, rtol=1e-5, atol=0)
    assert actual.dtype == FP8 and (actual.float() == expected.float()).float().mean() > 0.9


@pytest.mark.usefixtures("interpreted")
def test_triton_computes_gelu(normal, judge) -> None:
    """A row of one element is nothing but its factor: GELU to float32's precision."""
    x = normal(64, 1)
    _, scale = quantize_rows(x, gelu=True, implementation="triton")
    judge(scale * 448, F.gelu(x.double(), approximate="tanh").abs()[:, 0])


@pytest.mark.parametrize("gelu", [False, True])
def test_reference_is_within_fp8_precision(gelu, normal) -> None:
    x = normal(9, 300)
    x8, scale = quantize_rows(x, gelu=gelu)
    exact = F.gelu(x.double(), approximate="tanh") if gelu else x.double()
    assert ((x8.double() * scale[:, None] - exact).norm() / exact.norm()) < 0.04
    assert x8.float().abs().amax(dim=1).eq(448).all()


def test_rows_of_zeros_stay_zeros() -> None:
    x8, scale = quantize_rows(torch.zeros(2, 16))
    assert x8.float().eq(0).all() and scale.gt(0).all()


@pytest.mark.parametrize("biased", [False, True])
def test_product_agrees_with_float64(biased, normal) -> None:
    """The library's product of the 8-bit numbers, to bfloat16's precision."""
    (x8, row_scale), (w8, weight_scale) = quantize_rows(normal(33, 64)), quantize_rows(normal(48, 64) * 0.1)
    bias = normal(48, dtype=torch.bfloat16) if biased else None
    expected = (x8.double() * row_scale[:, None]) @ (w8.double() * weight_scale[:, None]).t()
    expected = expected if bias is None else expected + bias.double()
    out = fp8_linear(x8, row_scale, w8, weight_scale, bias)
    assert out.dtype == torch.bfloat16
    assert ((out.double() - expected).norm() / expected.norm()) < 4e-3


def test_product_passes_torchs_checks_for_cuda() -> None:
    """torch checks layouts and factors of a CUDA product without a GPU, on tensors that have no data."""
    with FakeTensorMode():
        x8, w8 = (torch.empty(rows, 1536, dtype=FP8, device="cuda") for rows in (3072, 8960))
        scales = [torch.empty(rows, device="cuda") for rows in (3072, 8960)]
        bias = torch.empty(8960, dtype=torch.bfloat16, device="cuda")
        assert fp8_linear(x8, scales[0], w8, scales[1], bias).shape == (3072, 8960)


@pytest.mark.parametrize("gelu", [False, True])
def test_operator_is_sound(gelu, normal) -> None:
    torch.library.opcheck(_operator, (normal(5, 32), gelu))


def test_feed_forward_compiles_as_one_graph(normal) -> None:
    up, down = quantize_rows(normal(32, 16) * 0.2), quantize_rows(normal(16, 32) * 0.2)

    def feed_forward(x):
        return fp8_linear(*quantize_rows(fp8_linear(*quantize_rows(x), *up), gelu=True), *down)

    x = normal(5, 16)
    torch.testing.assert_close(torch.compile(feed_forward, fullgraph=True, backend="aot_eager")(x), feed_forward(x))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda t: t[0], ValueError, r"\[M, K\]"),
        (lambda t: t.double(), TypeError, "float16"),
        (lambda t: t.bfloat16(), TypeError, "bfloat16"),
        (lambda t: t.t(), ValueError, "contiguous"),
        (lambda t: t.to("meta"), ValueError, "CPU tensors"),
        (lambda t: torch.zeros(1, 20000), ValueError, "up to 16384"),
    ],
)
@pytest.mark.usefixtures("interpreted")
def test_quantize_refuses(change, error, words, normal) -> None:
    with pytest.raises(error, match=words):
        quantize_rows(change(normal(4, 16)), implementation="triton")


@pytest.mark.parametrize(
    ("index", "change", "error", "words"),
    [
        (0, lambda t: t[:, :8].contiguous(), ValueError, r"weight8 \[N, K\]"),
        (0, lambda t: t.float(), TypeError, "x8 must be one of torch.float8_e4m3fn"),
        (1, lambda t: t[:2], ValueError, "factors of x8 must be"),
        (2, lambda t: t.t().contiguous().t(), ValueError, "weight8 must be contiguous"),
        (3, lambda t: t.double(), TypeError, "factors of weight8"),
        (4, lambda t: t.float(), TypeError, "bias must be one of torch.bfloat16"),
        (4, lambda t: t.to("meta"), ValueError, "one device"),
    ],
)
def test_product_refuses(index, change, error, words, normal) -> None:
    arguments = [*quantize_rows(normal(4, 16)), *quantize_rows(normal(32, 16)), normal(32, dtype=torch.bfloat16)]
    arguments[index] = change(arguments[index])
    with pytest.raises(error, match=words):
        fp8_linear(*arguments)
