"""Residual, gate, norm and modulation: Triton against float64, the operator, and what is refused."""

from __future__ import annotations

import pytest
import torch

from kernels.residual_norm import _operator, reference, residual_gate_norm_modulate

PLACES = ["entry", "plain", "after_attention", "after_cross_attention", "after_ffn"]


def arguments(place: str, normal, dtype=torch.float32, batch=2, frames=3, tokens=4, dim=37):
    """x and keyword arguments as a block calls the operation at one of its places; modulations are views of one tensor."""
    x, y = (normal(batch, frames * tokens, dim, dtype=dtype) for _ in range(2))
    m = normal(batch, frames, 6, dim, dtype=dtype).unbind(2)
    affine = {"weight": normal(dim, dtype=dtype), "bias": normal(dim, dtype=dtype)}
    modulation = {"scale": m[1], "shift": m[0]}
    return x, {
        "entry": modulation,
        "plain": {},
        "after_attention": {"y": y, "gate": m[2], **affine},
        "after_cross_attention": {"y": y, **modulation},
        "after_ffn": {"y": y, "gate": m[5], **modulation},
    }[place]


def in_float64(x, given):
    wide = {name: tensor.double() for name, tensor in given.items()}
    return residual_gate_norm_modulate(x.double(), **wide, implementation="reference")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.usefixtures("interpreted", "poisoned")
def test_triton_agrees_with_float64(place, dtype, normal, judge) -> None:
    x, given = arguments(place, normal, dtype)
    expected = in_float64(x, given)
    actual = residual_gate_norm_modulate(x, **given, implementation="triton")
    judge(actual.x, expected.x)
    judge(actual.h, expected.h)
    assert actual.row_scale is None


def test_reference_agrees_with_the_formula(normal, judge) -> None:
    x, given = arguments("after_ffn", normal)
    wide = x.double() + given["y"].double() * given["gate"].double().repeat_interleave(4, dim=1)
    h = (wide - wide.mean(-1, keepdim=True)) / (wide.var(-1, keepdim=True, correction=0) + 1e-6).sqrt()
    h = h * (1 + given["scale"].double().repeat_interleave(4, dim=1)) + given["shift"].double().repeat_interleave(4, dim=1)
    actual = residual_gate_norm_modulate(x, **given)
    judge(actual.x, wide)
    judge(actual.h, h)


@pytest.mark.usefixtures("interpreted")
def test_fp8_output_keeps_rows_in_range(normal) -> None:
    """The factor is exact; the interpreter's own cast to fp8 is not (up to 2x off near powers of two), so values are judged coarsely."""
    x, given = arguments("after_ffn", normal)
    expected = residual_gate_norm_modulate(x, **given, fp8=True, implementation="reference")
    actual = residual_gate_norm_modulate(x, **given, fp8=True, implementation="triton")
    torch.testing.assert_close(actual.row_scale, expected.row_scale, rtol=1e-5, atol=0)
    same = actual.h.float() == expected.h.float()
    assert actual.h.dtype == torch.float8_e4m3fn and same.float().mean() > 0.9


def test_fp8_reference_is_within_fp8_precision(normal) -> None:
    x, given = arguments("entry", normal)
    exact = in_float64(x, given).h
    out = residual_gate_norm_modulate(x, **given, fp8=True)
    assert out.row_scale is not None
    error = (out.h.double() * out.row_scale[..., None] - exact).norm() / exact.norm()
    assert error < 0.04


@pytest.mark.parametrize("fp8", [False, True])
@pytest.mark.parametrize("place", PLACES)
def test_operator_is_sound(place, fp8, normal) -> None:
    x, given = arguments(place, normal)
    names = ("y", "gate", "scale", "shift", "weight", "bias")
    torch.library.opcheck(_operator, (x, *(given.get(name) for name in names), 1e-6, fp8))


def test_compiles_as_one_graph(normal) -> None:
    x, given = arguments("after_ffn", normal)
    compiled = torch.compile(lambda x: residual_gate_norm_modulate(x, **given).h, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), reference(x, *(given[n] for n in ("y", "gate", "scale", "shift")), None, None, 1e-6, False)[1])


def test_gradients_take_the_reference(normal) -> None:
    x, given = arguments("after_ffn", normal)
    residual_gate_norm_modulate(x.requires_grad_(), **given).h.sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"scale": None}, ValueError, "scale and shift together"),
        ({"y": None}, ValueError, "gate needs y"),
        ({"gate": torch.ones(2, 5, 37)}, ValueError, "divisor of 12"),
        ({"gate": torch.ones(2, 1, 37)}, ValueError, "same number of latent frames"),
        ({"shift": torch.ones(2, 3, 74)[..., ::2]}, ValueError, "last dimension"),
        ({"y": torch.ones(2, 12, 37, dtype=torch.float16)}, TypeError, "float32"),
        ({"y": torch.ones(37, 12, 2).permute(2, 1, 0)}, ValueError, "contiguous"),
        ({"implementation": "cuda"}, ValueError, "auto, reference or triton"),
        ({"bias": torch.ones(37, device="meta"), "weight": torch.ones(37), "scale": None, "shift": None}, ValueError, "one device"),
    ],
)
def test_refuses(change, error, words, normal) -> None:
    x, given = arguments("after_ffn", normal)
    with pytest.raises(error, match=words):
        residual_gate_norm_modulate(x, **({"implementation": "triton"} | given | change))


def test_refuses_types_and_devices(normal) -> None:
    x = normal(1, 4, 8)
    with pytest.raises(TypeError, match="float16"):
        residual_gate_norm_modulate(x.double(), implementation="triton")
    with pytest.raises(TypeError, match="bfloat16"):
        residual_gate_norm_modulate(x.bfloat16(), implementation="triton")
    with pytest.raises(ValueError, match="CPU tensors"):
        residual_gate_norm_modulate(x.to("meta"), implementation="triton")
    with pytest.raises(ValueError, match=r"\[B, N, D\]"):
        residual_gate_norm_modulate(x[0])
