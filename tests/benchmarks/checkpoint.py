"""Loading the published transformers at their real size, from a file of random numbers: seconds and peak memory of the host.

    python tests/benchmarks/checkpoint.py --folder /tmp --json tests/benchmarks/results/checkpoint.json

Writes 3.7 GB there and deletes them again; needs 8 GB of memory and takes two minutes (Linux). Loading runs in a process of its own, as its
peak is read from the system, mapped pages of the file included; the file is in the page cache by then, as on a second start.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch  # noqa: E402

from model.echomimic.config import VARIANTS, Variant  # noqa: E402
from model.echomimic.folder import WeightsFolder  # noqa: E402
from tests.model.echomimic.miniature import CONFIG, write_miniature  # noqa: E402

# The base model's, whose other parts stay small: only the transformer is loaded here.
REAL = {
    "dim": 1536, "ffn_dim": 8960, "num_heads": 12, "num_layers": 30, "freq_dim": 256, "text_dim": 4096, "text_len": 512, "eps": 1e-6,
    "livemimic": {name: widths for name, widths in CONFIG["livemimic"].items() if name != "transformer"},
}  # fmt: skip
ALLOWED_SECONDS, ALLOWED_EXTRA_BYTES = 15.0, 1.5e9


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where there is room; default: the system's folder for temporary files")
    parser.add_argument("--json", type=Path, help="write the result here as well")
    parser.add_argument("--load", nargs=2, metavar=("VARIANT", "DIR"), help=argparse.SUPPRESS)  # the process that is measured
    args = parser.parse_args()
    if args.load:
        print(json.dumps(load(args.load[0], Path(args.load[1]))))
        return 0
    results = [measure(variant, args.folder) for variant in VARIANTS]
    for row in results:
        above = row["peak_mb"] - row["file_mb"]
        print(
            f"{row['variant']:<8} {row['file_mb']} MB: check {row['check_s']:.2f} s, load {row['load_s']:.2f} s "
            f"({row['load_cpu_s']:.2f} s of a core), peak {row['peak_mb']} MB "
            f"= file + {above} MB  {'ok' if row['ok'] else 'NO'}"
        )
    if args.json:
        args.json.write_text(json.dumps({"machine": platform.processor(), "torch": torch.__version__, "results": results}, indent=1) + "\n")
    return 0 if all(row["ok"] for row in results) else 1


def measure(variant: Variant, place: Path | None) -> dict[str, object]:
    with tempfile.TemporaryDirectory(dir=place, prefix="livemimic-") as name:
        folder = write_miniature(Path(name) / "weights", variant, REAL)
        size = WeightsFolder(folder, variant).paths["dit"].stat().st_size
        out = subprocess.run([sys.executable, __file__, "--load", variant, str(folder)], check=True, capture_output=True, text=True).stdout
    row = json.loads(out.splitlines()[-1])
    ok = row["load_s"] < ALLOWED_SECONDS and row["peak_bytes"] < size + ALLOWED_EXTRA_BYTES
    return {
        "variant": variant, "file_mb": size // 10**6, "peak_mb": row["peak_bytes"] // 10**6, "check_s": row["check_s"],
        "load_s": row["load_s"], "load_cpu_s": row["load_cpu_s"], "parameters": row["parameters"], "ok": ok,
    }  # fmt: skip


def load(variant: Variant, folder: Path) -> dict[str, float]:
    weights = WeightsFolder(folder, variant)
    began = time.perf_counter()
    weights.check()
    checked, busy = time.perf_counter(), time.process_time()
    dit = weights.load_dit(torch.device("cpu"), torch.bfloat16)
    # Mapped memory costs nothing until it is read: touch every value.
    total = sum(float(value.sum()) for value in dit.state_dict().values())
    assert total == total
    return {
        "check_s": checked - began, "load_s": time.perf_counter() - checked, "load_cpu_s": time.process_time() - busy,
        "parameters": sum(p.numel() for p in dit.parameters()),
        "peak_bytes": _peak_bytes(),
    }  # fmt: skip


def _peak_bytes() -> int:
    """Of this program alone: what getrusage says includes the process that it was forked from."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    sys.exit(main())
