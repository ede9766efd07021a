"""Finds the launch parameters of every kernel on the GPU at hand: `python tests/benchmarks/tune_kernels.py`, in a few minutes.

Candidates that spill, serialise tensor cores or need too much shared memory are dropped by compiling them. The rest take turns as in
triton_kernels.py, on its cases, after their results were compared with float64. A candidate replaces the default only if it is faster
by more than twice the spread. The result goes to kernels/tuning/NAME.json, NAME being the device's (h200, h100 ...), with all
measurements; from then on it is what the kernels use there. --dry-run proves on a CPU that the program runs: the first candidates are
compiled as they would be, the times mean nothing, and the file, which must be named, is one that the kernels refuse.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from kernels.tuning import FOLDER, Parameters  # noqa: E402
from tests.benchmarks.kernel_cases import Case, Scale, fused_cases  # noqa: E402
from tests.benchmarks.kernel_fp8 import fp8_cases  # noqa: E402
from tests.benchmarks.kernel_timing import measure, num_input_sets  # noqa: E402
from tests.benchmarks.kernel_windows import window_cases  # noqa: E402
from tests.benchmarks.triton_kernels import TINY, correctness, environment, is_right  # noqa: E402
from tests.kernels.offline import compile_variant  # noqa: E402

SHARED_BYTES = 232_448  # what one block may use on sm_90
DRY_CANDIDATES = 2  # compiling all of a grid takes minutes on a CPU


@dataclass(frozen=True, slots=True)
class Target:
    """What is tuned: an operation's launch parameters for a case of it, on the first case of the benchmark so named, by this grid."""

    operation: str
    case: str
    measured_on: str
    grid: dict[str, tuple[int, ...]]


ROW = {"num_warps": (2, 4, 8)}
ATTENTION = {"num_warps": (4, 8), "num_stages": (2, 3, 4)}
TARGETS = (
    Target("residual_norm", "row", "residual_norm B", ROW),
    Target("residual_norm", "row to fp8", "residual_norm fp8 B", ROW),
    Target("qkv_rope", "row", "qkv_rope B", ROW),
    Target("qkv_rope", "row to fp8", "qkv_rope fp8 B", ROW),
    Target("fp8_linear", "narrow rows", "fp8 feed-forward", ROW),
    Target("fp8_linear", "wide rows", "fp8 feed-forward", {"num_warps": (8, 16, 32)}),
    Target("yuv", "picture", "rgb_to_i420", {"BLOCK": (256, 512, 1024), "num_warps": (2, 4, 8)}),
    Target("cross_attention", "head 128", "cross_attention",
           {"TILE": (64, 128), "KEYS": (32, 64), "AUDIO_KEYS": (32,), "num_warps": (4, 8), "num_stages": (2, 3)}),
    Target("window_attention", "16 bits, tile 128, head 128", "window_attention ragged", ATTENTION),
    Target("window_attention", "8 bits, tile 128, head 128", "window_attention fp8", ATTENTION),
)  # fmt: skip


def refusal(module: Any, case: str, chosen: Parameters, *, every_type: bool) -> str | None:
    """Why the compiler's output for these parameters must not ship; of all types, or of the first, which tells most."""
    variants = module.variants(case, chosen)
    for variant in variants if every_type else variants[:1]:
        try:
            report = compile_variant(variant)
        except Exception as error:  # whatever the compiler says about a combination is why it is out
            return f"{variant.name}: {type(error).__name__}"
        if report["spills"] or report["serialized"] or report["shared"] > SHARED_BYTES or report["mma_sync"]:
            return f"{variant.name}: {report}"
    return None


def candidates(module: Any, target: Target) -> Iterator[tuple[str, Parameters, str | None]]:
    """Name, parameters and refusal of every point of the grid, the default first."""
    default = module.DEFAULTS[target.case]
    points = (dict(zip(target.grid, values, strict=True)) for values in product(*target.grid.values()))
    for chosen in (default, *(default | point for point in points if default | point != default)):
        name = ", ".join(f"{key} {value}" for key, value in chosen.items())
        yield name, chosen, refusal(module, target.case, chosen, every_type=chosen is default)


def with_parameters(module: Any, case: str, chosen: Parameters, run: Callable[..., Any]) -> Callable[..., Any]:
    def launched(*inputs: Any) -> Any:
        module.PARAMETERS[case] = chosen
        return run(*inputs)

    return launched


def tune(target: Target, case: Case, device: str) -> dict[str, Any]:
    """The fastest parameters that may ship, and everything that was found on the way."""
    module = importlib.import_module(f"kernels.{target.operation}.triton_impl")
    before = dict(module.PARAMETERS)
    dropped: dict[str, str] = {}
    given: dict[str, Parameters] = {}
    for name, chosen, reason in islice(candidates(module, target), None if device == "cuda" else DRY_CANDIDATES):
        if reason is None:
            given[name] = chosen
        else:
            dropped[name] = reason
    runs = {name: with_parameters(module, target.case, chosen, case.candidates[case.ours]) for name, chosen in given.items()}
    first = case.inputs()
    size = sum(t.numel() * t.element_size() for t in first if isinstance(t, torch.Tensor))
    for name, run in list(runs.items()):
        alone = Case(**{field: getattr(case, field) for field in Case.__slots__} | {"candidates": {"run": run}, "ours": "run"})  # type: ignore[arg-type]
        if not is_right(alone, correctness(alone, first, device)):
            dropped[name] = "wrong result"
            del runs[name]
    sets = [first] + [case.inputs() for _ in range((num_input_sets(size) if device == "cuda" else 1) - 1)]
    timings = measure(runs, sets, device)
    module.PARAMETERS.update(before)
    default = next(iter(given))
    found = {name: timing for name, timing in timings.items() if timing.unavailable is None}
    for name in sorted(found, key=lambda name: found[name].median_us):
        gain = found[default].median_us - found[name].median_us
        if name == default or (
            gain > 2 * (found[default].spread_us + found[name].spread_us)
            and refusal(module, target.case, given[name], every_type=True) is None
        ):
            break
    return {
        "parameters": given[name], "median_us": found[name].median_us, "default_us": found[default].median_us, "measured_on": case.name,
        "samples_us": {other: timing.samples_us for other, timing in found.items()}, "dropped": dropped,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="operations whose name contains this")
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes on the CPU; times mean nothing")
    parser.add_argument("--out", type=Path, help="the file to write (default: the device's own, in kernels/tuning)")
    arguments = parser.parse_args()
    if not arguments.dry_run and not torch.cuda.is_available():
        parser.error("no CUDA device; --dry-run proves that the program runs")
    if arguments.dry_run and arguments.out is None:
        parser.error("a dry run needs --out: what it writes is no measurement")
    device = "cpu" if arguments.dry_run else "cuda"
    start = time.perf_counter()
    scale = Scale("cpu", "auto", **TINY) if arguments.dry_run else Scale("cuda", "triton")
    report: dict[str, Any] = {"measurement": not arguments.dry_run, "command": " ".join(sys.argv), "environment": environment(device)}
    report |= {"date": time.strftime("%Y-%m-%d"), "operations": {}}
    if arguments.dry_run:
        print("DRY RUN on a CPU with tiny shapes: NOT A MEASUREMENT, no time below means anything")
    torch.manual_seed(5)
    with torch.inference_mode():
        cases = (*fused_cases(scale), *fp8_cases(scale), *window_cases(scale, False))
        for target in (target for target in TARGETS if arguments.only in target.operation):
            case = next(case for case in cases if case.name.startswith(target.measured_on))
            found = tune(target, case, device)
            report["operations"].setdefault(target.operation, {})[target.case] = found
            times = f"{found['median_us']:.1f} us, default {found['default_us']:.1f} us"
            print(f"{target.operation}, {target.case}: {found['parameters']}, {times}")
            for name, reason in found["dropped"].items():
                print(f"    dropped {name}: {reason[:140]}")
    report["seconds"] = time.perf_counter() - start
    path = arguments.out or FOLDER / f"{own_name()}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{path}, {report['seconds']:.0f} s" + ("; DRY RUN: NOT A MEASUREMENT" if arguments.dry_run else ""))
    return 0


def own_name() -> str:
    """The word of the device's name that has a digit: h200 of "NVIDIA H200"."""
    return next(word for word in re.split(r"\W+", torch.cuda.get_device_name().lower()) if any(letter.isdigit() for letter in word))


if __name__ == "__main__":
    raise SystemExit(main())
