"""The dispatcher: what is asked for is what runs, and everything works without triton."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import kernels.dispatch
from kernels.cross_attention import cross_attention
from kernels.dispatch import choose
from kernels.fp8 import FP8
from kernels.fp8_linear import quantize_rows
from kernels.qkv_rope import qkv_norm_rope_append
from kernels.residual_norm import residual_gate_norm_modulate
from kernels.window_attention import Scales, Session, window_attention
from kernels.yuv import rgb_to_i420

ROOT = Path(__file__).parents[2]


def test_a_cpu_takes_the_reference_and_its_compiler_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose("auto", (torch.ones(1), None)) == "reference"
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert choose("auto", (torch.ones(1), None)) == "operator"


def test_gradients_and_unknown_devices_take_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    needs_gradient = torch.ones(1, requires_grad=True)
    assert choose("auto", (torch.ones(1), needs_gradient)) == "reference"
    with torch.no_grad():
        assert choose("auto", (torch.ones(1), needs_gradient)) == "operator"
    assert choose("auto", (torch.ones(1, device="meta"),)) == "reference"


@pytest.mark.parametrize("name", ["reference", "triton"])
def test_what_is_named_is_taken(name) -> None:
    assert choose(name, (torch.ones(1),)) == name


def test_refuses_other_names() -> None:
    with pytest.raises(ValueError, match="auto, reference or triton"):
        choose("fast", (torch.ones(1),))


def test_cuda_tensors_take_the_operator_if_triton_is_there(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """And what is missing is said once."""
    with FakeTensorMode():
        x = torch.empty(1, device="cuda")
    monkeypatch.setattr(kernels.dispatch, "HAS_TRITON", True)
    assert choose("auto", (x,)) == "operator"
    monkeypatch.setattr(kernels.dispatch, "HAS_TRITON", False)
    assert [choose("auto", (x,)) for _ in range(2)] == ["reference"] * 2
    assert [record.message for record in caplog.records] == [
        "triton is not installed: kernels run as plain torch; pip install 'livemimic[gpu]'"
    ]


@pytest.mark.skipif(not kernels.dispatch.HAS_TRITON, reason="triton is not installed")
def test_shapes_on_a_gpu_are_known_without_one() -> None:
    """What torch.compile asks of the operators on CUDA tensors, answered by their fake kernels."""
    with FakeTensorMode():
        x, cache = torch.empty(2, 6, 64, device="cuda"), torch.empty(24, 64, device="cuda")
        index = torch.empty(12, dtype=torch.int32, device="cuda")
        out = residual_gate_norm_modulate(x, x, scale=x, shift=x, fp8=True)
        assert (out.x.shape, out.h.dtype) == (x.shape, torch.float8_e4m3fn)
        assert out.row_scale is not None and out.row_scale.shape == (2, 6)
        packed, weight, rope = (torch.empty(*shape, device="cuda") for shape in ((12, 192), (64,), (9, 8, 2)))
        q = qkv_norm_rope_append(packed, weight, weight, rope, index, index, cache, cache).q
        sessions = [Session(6, 0, 12, 0, 6), Session(6, 12, 12, 6, 12)]
        assert window_attention(q, cache, cache, sessions, num_heads=4).shape == (12, 64)
        ring8, scale = torch.empty(24, 64, dtype=FP8, device="cuda"), torch.empty(4, 24, device="cuda")
        q8, q_scale = qkv_norm_rope_append(packed, weight, weight, rope, index, index, ring8, ring8, scale, scale)
        assert (q8.dtype, q_scale.shape) == (FP8, (4, 12))
        out = window_attention(q8, ring8, ring8, sessions, num_heads=4, scales=Scales(q_scale, scale, scale))
        assert (out.dtype, out.shape) == (torch.bfloat16, (12, 64))
        assert cross_attention(x, (x, x), (x, x), (x.unsqueeze(2),) * 2, num_heads=4).shape == x.shape
        assert quantize_rows(packed, gelu=True)[0].shape == (12, 192)
        pictures = rgb_to_i420(torch.empty(3, 3, 8, 10, device="cuda"))
        assert (pictures.shape, pictures.dtype, pictures.device.type) == ((3, 12, 10), torch.uint8, "cuda")


def test_operators_work_without_triton() -> None:
    code = """
import sys
sys.modules["triton"] = None
import torch
from kernels.cross_attention import cross_attention
from kernels.fp8_linear import fp8_linear, quantize_rows
from kernels.qkv_rope import qkv_norm_rope_append
from kernels.residual_norm import residual_gate_norm_modulate
from kernels.window_attention import Session, window_attention
from kernels.yuv import rgb_to_i420
x, cache = torch.ones(1, 4, 8), torch.zeros(2, 6, 8)
index = torch.arange(4, dtype=torch.int32)
residual_gate_norm_modulate(x, x)
q = qkv_norm_rope_append(torch.ones(4, 24), *torch.ones(2, 8), torch.ones(4, 2, 2), index, index, *cache).q
window_attention(q, *cache, [Session(4, 0, 6, 0, 6)], num_heads=2)
cross_attention(x, (x, x), (x, x), (x[None], x[None]), num_heads=2)
fp8_linear(*quantize_rows(torch.ones(4, 16)), *quantize_rows(torch.ones(16, 16)))
rgb_to_i420(torch.ones(1, 3, 2, 2))
try:
    rgb_to_i420(torch.ones(1, 3, 2, 2), implementation="triton")
except ImportError:
    print("refused")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "refused\n"
