"""`livemimic verify DIR`: every golden file of a folder, case by case, as a table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError

from model.golden.case import Check, Result
from model.golden.manifests import SHAPES, check_manifest
from model.golden.registry import CHECKS, manifests_for, names_in, uncovered

ROW = "{:<22} {:<62} {:>10} {:>10}  {}"


def run(args: argparse.Namespace) -> int:
    """Exit status: 0 all hold, 1 some do not or a file is not covered, 2 there is nothing to check."""
    folder = args.dir / "golden" if (args.dir / "golden").is_dir() else args.dir
    if not folder.is_dir():
        print(f"livemimic verify: {folder} is not a folder", file=sys.stderr)
        return 2
    if not names_in(folder) and not manifests_for(folder):
        print(f"livemimic verify: {folder} holds no golden files (NAME.json, NAME.safetensors)", file=sys.stderr)
        return 2
    print(ROW.format("file", "case", "difference", "tolerance", "ok"))
    num_cases, num_failed = 0, 0
    with torch.inference_mode():
        for result in results(folder):
            print(ROW.format(result.file, result.case, f"{result.error:.1e}", f"{result.tolerance:.1e}", "yes" if result.ok else "NO"))
            num_cases, num_failed = num_cases + 1, num_failed + (not result.ok)
    print(f"{num_cases} cases, {num_failed} failed")
    return 1 if num_failed else 0


def results(folder: Path) -> Iterator[Result]:
    """Of all files in turn; one that cannot be read or is not covered is a failed case of its own."""
    for path in manifests_for(folder):
        if path.stem in SHAPES:
            yield from _guarded(path.stem, check_manifest, path)
    for name in names_in(folder):
        if name in CHECKS:
            yield from _guarded(name, CHECKS[name], folder)
    for path in uncovered(folder):
        yield Result(path.name, "not covered by any check", float("inf"), 0.0)


def _guarded(name: str, check: Check, path: Path) -> Iterator[Result]:
    try:
        yield from check(path)
    except ModuleNotFoundError as error:
        yield Result(name, f"needs {error.name}: pip install 'livemimic[echomimic]'", float("inf"), 0.0)
    except (LookupError, OSError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
        # A damaged or foreign file: the others are still worth checking.
        yield Result(name, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}", float("inf"), 0.0)
