"""Shared by the kernel tests: float64 as the judge, poisoned memory, and the compiler in a process without the interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3}


@pytest.fixture(params=[torch.float32, torch.float16], ids=["fp32", "fp16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """The types that Triton's interpreter computes correctly."""
    return request.param


@pytest.fixture
def normal() -> Callable[..., Tensor]:
    """Seeded normal numbers: normal(3, 4) float32, normal(3, 4, dtype=...)."""
    generator = torch.Generator().manual_seed(5)

    def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    return draw


@pytest.fixture
def judge() -> Callable[[Tensor, Tensor], None]:
    """Fails where the relative L2 error against a float64 result is more than the type of `actual` allows."""

    def compare(actual: Tensor, expected: Tensor) -> None:
        assert expected.dtype == torch.float64 and actual.shape == expected.shape
        error = ((actual.double() - expected).norm() / expected.norm()).item()
        assert error <= TOLERANCE[actual.dtype], error  # NaN fails too

    return compare


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Memory that nobody wrote is NaN (or the largest integer), so that a forgotten element cannot pass as zero."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(4).isnan().all() and torch.ones(2, dtype=torch.float16).new_empty(4).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def interpreted() -> None:
    pytest.importorskip("triton")
    from kernels.launch import INTERPRETED

    if not INTERPRETED:
        pytest.skip("TRITON_INTERPRET=1 must be set before triton is imported")


@pytest.fixture(scope="session")
def sm90_reports() -> list[dict[str, object]]:
    """What the assembler says about every shipped variant of every package, from one process, as importing torch takes seconds."""
    pytest.importorskip("triton")
    root = Path(__file__).parents[2]
    packages = sorted(path.parent.name for path in (root / "kernels").glob("*/triton_impl.py"))
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join((str(root), *filter(None, [os.environ.get("PYTHONPATH")])))
    command = [sys.executable, str(Path(__file__).with_name("offline.py")), *packages]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
