"""How fast the published 1.3B model could be live on this machine, with random weights: a table, and JSON for the record.

    python tests/benchmarks/echomimic.py --json tests/benchmarks/results/echomimic.json     one GPU, nothing else on it; under 10 minutes
    python tests/benchmarks/echomimic.py --small                                            any CPU: proves that the program runs

Measured, medians after a warm-up: the transformer's step over the windows of 1 to 8 sessions, in bfloat16 and with 8-bit linear layers;
decoding a latent frame (four video frames) with the full and the tiny decoder; and whole chunks, from noise to pictures on the host:
frames a second of all sessions together, and how long the first picture takes. A step is one pass, as few-step students need it;
released flash makes two. `floor` is what the operations alone would take at the rate this machine multiplies matrices at, measured in
the same run.
Cells are taken in the order of their importance; what would not fit the time is listed as left out.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from kernels.fp8_linear import fp8_linear, quantize_rows  # noqa: E402
from model.devices import choose_device, working_dtype  # noqa: E402
from model.echomimic.dit import EchoMimicDiT  # noqa: E402
from model.echomimic.samplers import make_sampler  # noqa: E402
from tests.benchmarks import echomimic_parts as parts  # noqa: E402

Row = dict[str, Any]
FPS = 25
REPEATS = 3


class Budget:
    """Cells that are expected to take longer than one cell may, or would begin after the end, are left out and listed."""

    def __init__(self, total_s: float, cell_s: float) -> None:
        self.end, self.cell_s = time.perf_counter() + total_s, cell_s
        self.left_out: list[str] = []

    def allows(self, label: str, expected_s: float = 0.0) -> bool:
        fits = expected_s <= self.cell_s and time.perf_counter() + expected_s <= self.end
        if not fits:
            self.left_out.append(label)
        return fits


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--small", action="store_true", help="tiny widths: for a CPU, where the numbers say nothing of the real model")
    parser.add_argument("--compile", choices=("default", "reduce-overhead"), help="torch.compile's mode; each shape takes a minute more")
    parser.add_argument("--minutes", type=float, default=9.0, help="no cell begins after this (default: %(default)s)")
    parser.add_argument("--cell-seconds", type=float, default=12.0, help="longest cell (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the result here as well")
    args = parser.parse_args()
    device = choose_device(args.device)
    profile = parts.SMALL if args.small else parts.FULL
    budget = Budget(args.minutes * 60, args.cell_seconds)
    with torch.inference_mode():
        result = run(profile, device, budget, args.compile)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def run(profile: parts.Profile, device: torch.device, budget: Budget, compile_mode: str | None) -> Row:
    rates = matmul_rates(device, 8192 if profile.name == "full" else 96)
    print(f"{profile.name} profile on {hardware(device)}")
    print("matrix products: " + ", ".join(f"{name} {rate / 1e12:.3g} TFLOP/s" for name, rate in rates.items()))
    steps: list[Row] = []
    pairs = [(size, kind) for size in profile.sizes for kind in ("full", "tiny")]
    decodes = [row for size, kind in pairs for row in decode_rows(profile, device, size, kind, rates, budget)]
    chunks: list[Row] = []
    for precision in rates:
        dit = parts.make_dit(profile, device, precision)
        if compile_mode:
            dit.compile(mode=compile_mode, dynamic=False)
        for size in profile.sizes:
            for window in profile.windows:
                steps += step_rows(profile, dit, device, size, window, precision, rates, budget)
                chunks += chunk_rows(profile, dit, device, size, window, precision, steps, budget)
        del dit
    print(f"left out for lack of time or memory: {', '.join(budget.left_out) or 'nothing'}")
    return {
        "profile": profile.name, "hardware": hardware(device), "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda},
        "compile": compile_mode, "matmul_tflops": {name: rate / 1e12 for name, rate in rates.items()},
        "host_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "steps": steps, "decodes": decodes, "chunks": chunks, "left_out": budget.left_out,
    }  # fmt: skip


def step_rows(
    profile: parts.Profile, dit: EchoMimicDiT, device: torch.device, size: tuple[int, int], window: tuple[int, int], precision: str,
    rates: dict[str, float], budget: Budget,
) -> list[Row]:  # fmt: skip
    """One pass over the windows [anchor | context | new] of several sessions."""
    frames = 1 + sum(window)
    work = parts.dit_work(profile, size, frames)
    rows: list[Row] = []
    for batch in profile.sessions:
        label = f"step {precision} {_by(size)} {frames} latents x{batch}"
        expected = rows[-1]["seconds"] * batch / rows[-1]["sessions"] * (REPEATS + 1) if rows else 0.0
        if not budget.allows(label, expected):
            continue
        forward = parts.dit_inputs(profile, size, frames, batch, device)
        timed = measure(lambda forward=forward: forward(dit), device, label, budget)
        if timed is None:
            continue
        floor = batch * (work.linear / rates[precision] + work.other / rates[parts.full_precision(device)])
        rows.append({
            "precision": precision, "size": _by(size), "window_latents": frames, "sessions": batch, **timed,
            "tflop": batch * work.total / 1e12, "floor_s": floor,
        })  # fmt: skip
        say(label, rows[-1])
    return rows


def decode_rows(
    profile: parts.Profile, device: torch.device, size: tuple[int, int], kind: str, rates: dict[str, float], budget: Budget
) -> list[Row]:
    """A latent frame inside a stream."""
    decoder, work = parts.make_decoder(profile, device, kind), parts.decoder_work(profile, size, kind)
    rows: list[Row] = []
    for batch in profile.sessions:
        label = f"decode {kind} {_by(size)} x{batch}"
        expected = rows[-1]["seconds"] * batch / rows[-1]["sessions"] * (REPEATS + 1) if rows else 0.0
        if not budget.allows(label, expected):
            continue
        z, history = latents(size, 1, batch, device), {}
        timed = measure(lambda z=z, history=history: decoder.decode(z, history), device, label, budget)
        if timed is None:
            continue
        rows.append({
            "decoder": kind, "size": _by(size), "sessions": batch, **timed, "ms_a_video_frame": timed["seconds"] * 1e3 / 4 / batch,
            "tflop": batch * work / 1e12, "floor_s": batch * work / rates[parts.full_precision(device)],
        })  # fmt: skip
        say(label, rows[-1])
    return rows


def chunk_rows(
    profile: parts.Profile, dit: EchoMimicDiT, device: torch.device, size: tuple[int, int], window: tuple[int, int], precision: str,
    steps: list[Row], budget: Budget,
) -> list[Row]:  # fmt: skip
    """From noise to pictures on the host, all sessions in one batch."""
    frames, new = 1 + sum(window), window[1]
    single = {row["sessions"]: row["seconds"] for row in steps if (row["precision"], row["size"], row["window_latents"]) == (
        precision, _by(size), frames)}  # fmt: skip
    rows: list[Row] = []
    for kind in ("tiny", "full"):
        decoder = parts.make_decoder(profile, device, kind)
        for batch, step_s in single.items():
            forward = parts.dit_inputs(profile, size, frames, batch, device)
            noise = latents(size, frames, batch, device)
            for num_steps in profile.steps:
                label = f"chunk {precision} {kind} {_by(size)} {frames} latents, {new} new, {num_steps} steps x{batch}"
                if not budget.allows(label, step_s * num_steps * (REPEATS + 1)):
                    continue
                chunk = Chunk(dit, decoder, forward, noise, new, num_steps)
                timed = measure(chunk, device, label, budget)
                if timed is None:
                    continue
                made = batch * new * 4 / timed["seconds"]
                rows.append({
                    "precision": precision, "decoder": kind, "size": _by(size), "window_latents": frames, "new_latents": new,
                    "steps": num_steps, "sessions": batch, **timed, "fps": made, "real_time": made >= FPS * batch,
                    "first_frame_s": statistics.median(chunk.first_s[1:]),
                })  # fmt: skip
                say(label, rows[-1])
    return rows


class Chunk:
    """One chunk of a stream that has begun; remembers when the first picture was on the host."""

    def __init__(self, dit: EchoMimicDiT, decoder: Any, forward: Callable[[EchoMimicDiT], Tensor], noise: Tensor, new: int, num_steps: int):
        self.dit, self.decoder, self.forward, self.noise, self.new, self.num_steps = dit, decoder, forward, noise, new, num_steps
        self.first_s: list[float] = []
        self.history: dict[Any, Tensor] = {}
        decoder.decode(noise[:, :, :1], self.history)

    def __call__(self) -> None:
        began, x = time.perf_counter(), self.noise
        sampler = make_sampler("flow", self.num_steps, constructor_shift=5.0, call_shift=5.0)
        for i in range(self.num_steps):
            x = sampler.step(i, x, self.forward(self.dit))
        for k, latent in enumerate(x[:, :, -self.new :].split(1, dim=2)):
            self.decoder.decode(latent, self.history).cpu()
            if k == 0:
                self.first_s.append(time.perf_counter() - began)


def measure(run: Callable[[], object], device: torch.device, label: str, budget: Budget) -> Row | None:
    """Median seconds after a warm-up, and the device's peak memory; None where it does not fit into that."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    seconds: list[float] = []
    try:
        for _ in range(REPEATS + 1):
            began = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
    except torch.OutOfMemoryError:
        budget.left_out.append(f"{label} (memory)")
        return None
    peak = torch.cuda.max_memory_allocated() // 10**6 if device.type == "cuda" else None
    return {"seconds": statistics.median(seconds[1:]), "peak_mb": peak}


def matmul_rates(device: torch.device, side: int) -> dict[str, float]:
    """Operations a second of a square matrix product; without fp8 where the device has none."""
    a, b = (torch.randn(side, side, device=device, dtype=working_dtype(device)) for _ in range(2))
    budget = Budget(60, 60)
    rates: dict[str, float] = {}
    a8, b8 = quantize_rows(a), quantize_rows(b)
    for name, product in ((parts.full_precision(device), lambda: a @ b), ("fp8", lambda: fp8_linear(*a8, *b8))):
        try:
            timed = measure(lambda product=product: [product() for _ in range(10)], device, name, budget)
        except RuntimeError as error:
            print(f"{name} is left out: {str(error).splitlines()[0]}")
            continue
        assert timed is not None
        rates[name] = 10 * 2 * side**3 / timed["seconds"]
    return rates


def latents(size: tuple[int, int], frames: int, batch: int, device: torch.device) -> Tensor:
    return torch.randn(batch, 16, frames, size[1] // 8, size[0] // 8, device=device, dtype=working_dtype(device))


def hardware(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def say(label: str, row: Row) -> None:
    """A line as soon as a cell is done: this is the progress, and the table."""
    told = [f"{row['seconds'] * 1e3:9.1f} ms"]
    if "floor_s" in row:
        told.append(f"floor {row['floor_s'] * 1e3:8.1f} ms ({row['floor_s'] / row['seconds']:4.0%})")
    if "fps" in row:
        told.append(f"{row['fps']:7.1f} fps, first frame {row['first_frame_s'] * 1e3:7.1f} ms{', real time' * row['real_time']}")
    if row["peak_mb"] is not None:
        told.append(f"{row['peak_mb']} MB")
    print(f"{label:<62} " + "  ".join(told), flush=True)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


if __name__ == "__main__":
    sys.exit(main())
