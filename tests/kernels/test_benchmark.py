"""The kernel benchmark runs from end to end without a GPU, says that it measured nothing, and finds every result right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "triton_kernels.py"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, PROGRAM, *arguments], cwd="/", capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the dry run is for machines without a GPU")
def test_dry_run_runs_every_case_and_measures_nothing(tmp_path: Path) -> None:
    done = run("--dry-run", "--json", tmp_path / "out.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("NOT A MEASUREMENT") == 2
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["measurement"] is False
    goals = [goal for case in report["cases"] for goal in case["goals"]]
    assert {"A1", "A4", "A5", "A6", "A7", "C1", "E1", "E2", "F1", "F2", "F3", "G1", "I420"} <= {goal["id"] for goal in goals}
    assert {goal["verdict"] for goal in goals} <= {"dry run", "no baseline here"}
    assert all(goal["ratio"] is None for goal in goals)
    for case in report["cases"]:
        assert case["repeats"] and case["relative_l2"][case["ours"]] <= case["max_error"], case["name"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure on")
def test_without_a_gpu_it_refuses_to_measure() -> None:
    done = run()
    assert done.returncode == 2 and "no CUDA device" in done.stderr
