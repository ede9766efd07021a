"""Before any test: kernels run in the Triton interpreter without a GPU; tests that need a device are skipped."""

from __future__ import annotations

import os
import shutil
from functools import cache

# Both are read when triton and OpenMP are first imported, so they are set before anything of ours is.
if not os.path.exists("/dev/nvidiactl"):
    os.environ.setdefault("TRITON_INTERPRET", "1")
os.environ.setdefault("OMP_NUM_THREADS", "2")

import pytest  # noqa: E402


def chromium_path() -> str | None:
    return next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )


@cache
def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not has_gpu():
        pytest.skip("no CUDA device")
    if item.get_closest_marker("browser") and chromium_path() is None:
        pytest.skip("no Chromium: apt-get install chromium")


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the installed Chromium, for playwright's `executable_path`."""
    path = chromium_path()
    assert path is not None, "mark the test with @pytest.mark.browser"
    return path
