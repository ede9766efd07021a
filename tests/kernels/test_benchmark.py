"""The kernel benchmark and the tuner run from end to end without a GPU, say that they measured nothing, and find every result right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"


def run(*arguments: str | Path, program: str = "triton_kernels.py") -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, FOLDER / program, *arguments]
    return subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the dry run is for machines without a GPU")
def test_dry_run_runs_every_case_and_measures_nothing(tmp_path: Path) -> None:
    done = run("--dry-run", "--json", tmp_path / "out.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("NOT A MEASUREMENT") == 2
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["measurement"] is False
    goals = [goal for case in report["cases"] for goal in case["goals"]]
    assert {f"A{i}" for i in range(1, 9)} | {"C1", "E1", "E2", "F1", "F2", "F3", "G1", "I420", "causal"} <= {goal["id"] for goal in goals}
    assert {goal["verdict"] for goal in goals} <= {"dry run", "no baseline here"}
    assert all(goal["ratio"] is None for goal in goals)
    for case in report["cases"]:
        assert case["right"], case


@pytest.mark.skipif(torch.cuda.is_available(), reason="the dry run is for machines without a GPU")
def test_dry_tuning_compiles_candidates_and_its_file_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    from kernels.residual_norm.triton_impl import DEFAULTS
    from kernels.tuning import measured

    done = run("--dry-run", "--only", "residual_norm", "--out", tmp_path / "h200.json", program="tune_kernels.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("NOT A MEASUREMENT") == 2
    found = json.loads((tmp_path / "h200.json").read_text())["operations"]["residual_norm"]
    assert found.keys() == DEFAULTS.keys()
    assert all(len(case["samples_us"]) == 2 and not case["dropped"] for case in found.values())
    with pytest.raises(ValueError, match="holds no measurement"):
        measured(tmp_path / "h200.json", "residual_norm", DEFAULTS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure on")
def test_tuning_refuses_to_measure_without_a_gpu() -> None:
    done = run(program="tune_kernels.py")
    assert done.returncode == 2 and "no CUDA device" in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure on")
def test_without_a_gpu_it_refuses_to_measure() -> None:
    done = run()
    assert done.returncode == 2 and "no CUDA device" in done.stderr
