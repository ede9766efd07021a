"""The distribution: its names, the cost of importing it, and peace with Hugging Face's package called `kernels`."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIVEMIMIC = Path(sys.executable).with_name("livemimic")
has_transformers = pytest.mark.skipif(
    "transformers" not in importlib.metadata.packages_distributions(), reason="transformers is not installed"
)


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter outside the checkout, where only what is installed can be imported."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-c", code], cwd="/", env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_distribution_owns_its_packages_alone() -> None:
    owners = importlib.metadata.packages_distributions()
    for package in ("kernels", "model", "streamer"):
        assert set(owners[package]) == {"livemimic"}, package


def test_version_stays_outside_what_transformers_accepts() -> None:
    """Transformers takes `kernels` for Hugging Face's when the owner's version is in its window, which only rises."""
    assert importlib.metadata.version("livemimic").startswith("0.1.")


def test_installed_kernels_is_ours_and_imports_nothing() -> None:
    done = run_python(
        "import sys, kernels\n"
        "assert kernels.__version__ == '0.0.0', kernels.__version__\n"
        "assert not {'torch', 'triton', 'numpy'} & set(sys.modules)\n"
        "print(kernels.__file__)"
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == ROOT / "kernels" / "__init__.py"


@has_transformers
def test_transformers_does_not_take_our_kernels_for_its_own() -> None:
    done = run_python(
        "from transformers import CLIPVisionModel, UMT5EncoderModel, Wav2Vec2Model\n"
        "from transformers.utils import is_kernels_available\n"
        "assert not is_kernels_available()"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["streamer.cli", "streamer.doctor", "model.geometry", "model.portraits", "model.presets"])
def test_media_process_imports_no_torch(module: str) -> None:
    done = run_python(f"import sys, {module}; assert 'torch' not in sys.modules")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "module", ["streamer.server", "streamer.worker", "model.pipeline", "model.echomimic.folder", "model.echomimic.live"]
)
def test_only_the_published_weights_import_transformers(module: str) -> None:
    done = run_python(f"import sys, {module}; assert 'transformers' not in sys.modules")
    assert done.returncode == 0, done.stderr


def test_the_embedded_preset_loads_without_transformers() -> None:
    done = run_python("import sys, model.presets as m; m.load_pipeline(device='cpu'); assert 'transformers' not in sys.modules")
    assert done.returncode == 0, done.stderr


def test_help_comes_within_a_second() -> None:
    durations = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([LIVEMIMIC, "--help"], cwd="/", capture_output=True, text=True, timeout=30, check=False)
        durations.append(time.perf_counter() - start)
        assert done.returncode == 0, done.stderr
    assert "serve" in done.stdout and "render" in done.stdout
    assert min(durations) < 1.0


@pytest.mark.parametrize("name", ["model/weights/facefinder.safetensors", "model/weights/facefinder.NOTICE", "LICENSE"])
def test_shipped_file_is_there(name: str) -> None:
    assert (ROOT / name).stat().st_size > 0


def test_every_direct_dependency_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    normal = {name.lower().replace("_", "-") for name in pins}
    wanted = importlib.metadata.requires("livemimic") or []
    names = {requirement.split(";")[0].strip() for requirement in wanted}
    bare = {name[: next((i for i, c in enumerate(name) if c in "<>=!~ ["), len(name))] for name in names}
    assert not bare - normal
    assert pins["torch"] == "2.13.0"
    assert tuple(int(part) for part in pins["numpy"].split(".")[:2]) < (2, 4)
