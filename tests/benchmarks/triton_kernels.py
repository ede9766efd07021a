"""Every kernel against the best that torch has: `python tests/benchmarks/triton_kernels.py --json FILE`, on one GPU, under ten minutes.

Ceilings of the device first, then each case: correctness against float64 on memory that held NaN, two runs equal to the bit, then
times (see kernel_timing). Prints a table of times and one of ratios against the goals. --dry-run proves on a CPU, in seconds,
that the program runs; its numbers are NOT measurements and the output says so.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# The case files beside this one are imported by their full names. (No file here may be called kernels.py: a script's own folder comes
# first on the path, so it would hide the package from every benchmark.)
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from tests.benchmarks.kernel_block import block_cases  # noqa: E402
from tests.benchmarks.kernel_cases import Case, Scale, fused_cases  # noqa: E402
from tests.benchmarks.kernel_fp8 import fp8_cases  # noqa: E402
from tests.benchmarks.kernel_timing import Timing, ceilings, eager_us, measure, num_input_sets, poison  # noqa: E402
from tests.benchmarks.kernel_windows import window_cases  # noqa: E402

TINY = {
    "heads": 2, "head_dim": 16, "ffn": 64, "frame_tokens": 16, "text": 5, "image": 3, "audio": 2, "batches": (1, 2), "picture": 8
}  # fmt: skip


def environment(device: str) -> dict[str, Any]:
    from importlib.util import find_spec

    found: dict[str, Any] = {"python": platform.python_version(), "torch": torch.__version__, "device": platform.processor() or "CPU"}
    if find_spec("triton"):
        import triton

        found["triton"] = triton.__version__
    if device == "cuda":
        found |= {"device": torch.cuda.get_device_name(), "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        query = ["nvidia-smi", "--query-gpu=driver_version,power.limit,clocks.max.sm,clocks.max.memory", "--format=csv,noheader"]
        found["driver, power, clocks"] = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    return found


def correctness(case: Case, inputs: tuple[Any, ...], device: str) -> dict[str, Any]:
    """Relative L2 error of every candidate against float64, and whether ours repeats to the bit."""
    exact = case.exact(*inputs)
    errors: dict[str, float | str] = {}
    for name, run in case.candidates.items():
        try:
            poison(device)
            part = case.part(run(*inputs)).double()
            errors[name] = ((part - exact).norm() / exact.norm()).item()
        except Exception as error:  # as in measure(): a candidate that refuses is part of the result
            errors[name] = f"{type(error).__name__}"
    twice = [case.part(case.candidates[case.ours](*inputs)) for _ in range(2)]
    cosine = torch.nn.functional.cosine_similarity(twice[0].double().flatten(), exact.flatten(), dim=0).item()
    return {"relative_l2": errors, "cosine": cosine, "repeats": bool(torch.equal(*twice))}


def is_right(case: Case, checked: dict[str, Any]) -> bool:
    """Within the case's own bound, within 1.2 times the error of the library where that is asked, and the same on every run."""
    error, theirs = (checked["relative_l2"].get(name) for name in (case.ours, case.no_worse_than))
    bound = min(case.max_error, 1.2 * theirs) if isinstance(theirs, float) else case.max_error
    return isinstance(error, float) and error <= bound and checked["repeats"]


def run_case(case: Case, device: str, limits: dict[str, float]) -> dict[str, Any]:
    first = case.inputs()
    set_bytes = sum(t.numel() * t.element_size() for t in first if isinstance(t, torch.Tensor))
    checked = correctness(case, first, device)
    sets = [first] + [case.inputs() for _ in range((num_input_sets(set_bytes) if device == "cuda" else 1) - 1)]
    timings = measure(case.candidates, sets, device)
    floor_us = max(case.operations / limits["product_tflops"], case.bytes / limits["copy_tbps"]) * 1e-6
    return {
        "name": case.name, "ours": case.ours, "operations": case.operations, "bytes": case.bytes, "floor_us": floor_us,
        "right": is_right(case, checked),
        "timings": {name: asdict(timing) for name, timing in timings.items()},
        "eager_us": None if timings[case.ours].unavailable else eager_us(case.candidates[case.ours], first, device),
        "goals": [verdict(case, goal, timings, floor_us, checked) for goal in case.goals], **checked,
    }  # fmt: skip


def verdict(case: Case, goal: Any, timings: dict[str, Timing], floor_us: float, checked: dict[str, Any]) -> dict[str, Any]:
    ours = timings[case.ours]
    rivals = {n: t for n, t in timings.items() if n != case.ours and n.startswith(goal.against) and t.unavailable is None}
    if goal.against == ("floor",):
        rivals = {"floor": Timing([floor_us, floor_us])}
    row = {"id": goal.id, "case": case.name, "must": goal.must, "stretch": goal.stretch, "baseline": None, "ratio": None}
    if ours.unavailable or not rivals:
        return row | {"verdict": "no baseline here" if not ours.unavailable else "does not run"}
    if not is_right(case, checked):
        return row | {"verdict": "wrong result"}
    best = min(rivals, key=lambda name: rivals[name].median_us)
    ratio = rivals[best].median_us / ours.median_us
    same = abs(rivals[best].median_us - ours.median_us) < 2 * (rivals[best].spread_us + ours.spread_us)
    if not torch.cuda.is_available():
        return row | {"baseline": best, "verdict": "dry run"}
    word = "stretch" if ratio >= goal.stretch else "met" if ratio >= goal.must else "missed"
    return row | {"baseline": best, "ratio": ratio, "verdict": word + (" (no difference)" if same else "")}


def print_times(result: dict[str, Any], limits: dict[str, float]) -> None:
    print(f"\n{result['name']}   cosine to float64 {result['cosine']:.6f}")
    for name, timing in result["timings"].items():
        if timing["unavailable"]:
            print(f"  {name:18} not available: {timing['unavailable']}")
            continue
        found = Timing(timing["samples_us"])
        seconds = found.median_us * 1e-6
        shares = []
        for amount, ceiling, what in (("operations", "product_tflops", "product rate"), ("bytes", "copy_tbps", "copy rate")):
            if result[amount]:
                shares.append(f"{result[amount] / seconds / limits[ceiling] * 1e-12:4.0%} of {what}")
        error = result["relative_l2"][name]
        error = f"{error:.1e}" if isinstance(error, float) else error
        print(f"  {name:18} {found.median_us:10.1f} us +-{found.spread_us:7.1f}   {', '.join(shares):42} error {error}")


def print_goals(results: list[dict[str, Any]]) -> None:
    print(f"\n{'goal':9} {'case':48} {'best baseline':16} {'ratio':>6} {'must':>5} {'stretch':>7}  verdict")
    for goal in (goal for result in results for goal in result["goals"]):
        ratio = "-" if goal["ratio"] is None else f"{goal['ratio']:.2f}"
        baseline = goal["baseline"] or "-"
        print(f"{goal['id']:9} {goal['case']:48} {baseline:16} {ratio:>6} {goal['must']:5} {goal['stretch']:7}  {goal['verdict']}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write everything, raw samples included")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--grid", action="store_true", help="all attention shapes, not only those of the goals (takes longer)")
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes on the CPU; numbers mean nothing")
    arguments = parser.parse_args()
    if not arguments.dry_run and not torch.cuda.is_available():
        parser.error("no CUDA device; --dry-run proves that the program runs")
    device = "cpu" if arguments.dry_run else "cuda"
    torch.manual_seed(5)
    start = time.perf_counter()
    scale = Scale("cpu", "auto", **TINY) if arguments.dry_run else Scale("cuda", "triton")
    report: dict[str, Any] = {"measurement": not arguments.dry_run, "environment": environment(device), "ceilings": ceilings(device)}
    if arguments.dry_run:
        print("DRY RUN on a CPU with tiny shapes: NOT A MEASUREMENT, no number below means anything")
    print(report["environment"], report["ceilings"])
    report["cases"] = []
    with torch.inference_mode():
        for case in (*fused_cases(scale), *fp8_cases(scale), *window_cases(scale, arguments.grid), *block_cases(scale)):
            if arguments.only in case.name:
                report["cases"].append(run_case(case, device, report["ceilings"]))
                print_times(report["cases"][-1], report["ceilings"])
    print_goals(report["cases"])
    report["seconds"] = time.perf_counter() - start
    print(f"\n{report['seconds']:.0f} s" + ("; DRY RUN: NOT A MEASUREMENT" if arguments.dry_run else ""))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1))
    return int(any(goal["verdict"] in ("wrong result", "does not run") for result in report["cases"] for goal in result["goals"]))


if __name__ == "__main__":
    raise SystemExit(main())
