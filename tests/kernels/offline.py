"""Compiles every shipped kernel for sm_90 without a GPU and prints what the assembler says, as JSON. Run without the interpreter.

    python tests/kernels/offline.py residual_norm [another package of kernels ...]
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

PTXAS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"


def ptxas_report(ptx: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        command = [PTXAS, "-v", "-arch=sm_90a", source, "-o", Path(folder) / "kernel.cubin"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return done.stderr + done.stdout


def compile_variant(variant) -> dict[str, object]:  # type: ignore[no-untyped-def]
    names = variant.kernel.arg_names
    signature = {name: variant.types.get(name, "constexpr") for name in names}
    # Pointers come from torch's allocator and sizes are multiples of 16 in the shapes that ship, as a launch would find.
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if signature[name][0] in "*i"}
    source = ASTSource(variant.kernel, signature, variant.constants, aligned)
    options = {"num_warps": variant.num_warps, "num_stages": variant.num_stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    ptx = compiled.asm["ptx"]
    report = ptxas_report(ptx)
    spills = sum(int(n) for n in re.findall(r"(\d+) bytes spill", report))
    return {
        "name": variant.name,
        "registers": int(re.search(r"Used (\d+) registers", report).group(1)),  # type: ignore[union-attr]
        "spills": spills,
        "shared": compiled.metadata.shared,
        "wgmma": len(re.findall(r"wgmma\.mma_async", ptx)),
        "mma_sync": len(re.findall(r"(?<!w)mma\.sync", ptx)),
        "serialized": "serializ" in report,
        "tensor_cores": variant.tensor_cores,
    }


if __name__ == "__main__":
    reports = []
    for package in sys.argv[1:]:
        module = importlib.import_module(f"kernels.{package}.triton_impl")
        reports += [{"package": package} | compile_variant(variant) for variant in module.shipped()]
    print(json.dumps(reports))
