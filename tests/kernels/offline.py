"""Compiles every shipped kernel for sm_90 without a GPU and prints what the assembler says, as JSON. Run without the interpreter.

    python tests/kernels/offline.py residual_norm [another package of kernels ...]
"""

from __future__ import annotations

import importlib
import io
import json
import re
import sys
from contextlib import redirect_stdout

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

# The assembler's own words, from the run that triton makes of it: its options differ between versions of triton.
triton.knobs.nvidia.dump_ptxas_log = True
triton.knobs.compilation.always_compile = True


def compile_variant(variant) -> dict[str, object]:  # type: ignore[no-untyped-def]
    names = variant.kernel.arg_names
    signature = {name: variant.types.get(name, "constexpr") for name in names}
    # Pointers come from torch's allocator and sizes are multiples of 16 in the shapes that ship, as a launch would find.
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if signature[name][0] in "*i"}
    source = ASTSource(variant.kernel, signature, variant.constants, aligned)
    options = {"num_warps": variant.num_warps, "num_stages": variant.num_stages}
    with redirect_stdout(io.StringIO()) as log:
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    ptx, report = compiled.asm["ptx"], log.getvalue()
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
