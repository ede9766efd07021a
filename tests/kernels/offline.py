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

from kernels.tuning import every

# The assembler's own words, from the run that triton makes of it: its options differ between versions of triton.
triton.knobs.nvidia.dump_ptxas_log = True
triton.knobs.compilation.always_compile = True


def compile_variant(variant) -> dict[str, object]:  # type: ignore[no-untyped-def]
    names = variant.kernel.arg_names
    signature = {name: variant.types.get(name, "constexpr") for name in names}
    # Pointers come from torch's allocator and sizes are multiples of 16 in the shapes that ship, as a launch would find.
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if signature[name][0] in "*i"}
    options = {name: value for name, value in variant.constants.items() if name not in names}
    source = ASTSource(variant.kernel, signature, {n: v for n, v in variant.constants.items() if n in names}, aligned)
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
        for case, chosen in every(package, module.DEFAULTS):
            reports += [{"package": package} | compile_variant(variant) for variant in module.variants(case, chosen)]
    print(json.dumps(reports))
