"""Every golden file that has a check passes it; the folder is not part of the repository, so these skip without it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from model.golden.manifests import SHAPES, check_manifest
from model.golden.registry import CHECKS, manifests_for, uncovered

# Files whose modules are transformers'.
LIBRARY = ("t5", "audio_wav2vec", "fullwidth", "manifest_t5", "pipeline_preview", "pipeline_flash")
REPOSITORY = Path(__file__).resolve().parents[3]
DATA = Path(os.environ.get("LIVEMIMIC_GOLDEN") or REPOSITORY.parent / "shared" / "echomimic_v3")
GOLDEN = DATA / "golden"
pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no golden files at {GOLDEN}; LIVEMIMIC_GOLDEN names their folder")


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name == "fullwidth" else name for name in CHECKS])
def test_a_part_gives_the_golden_values(name: str) -> None:
    """Every case of the file is within its tolerance."""
    _needs_library(name)
    if not list(GOLDEN.glob(f"{name}.*")):
        pytest.skip(f"no {name}.* in {GOLDEN}")
    results = list(CHECKS[name](GOLDEN))
    assert results
    assert not [result for result in results if not result.ok]


@pytest.mark.parametrize("name", SHAPES)
def test_modules_have_the_published_names_and_shapes(name: str) -> None:
    """A module on the meta device has exactly the tensors that the published file lists."""
    _needs_library(name)
    paths = [path for path in manifests_for(GOLDEN) if path.stem == name]
    if not paths:
        pytest.skip(f"no {name}.json in {GOLDEN} or beside it")
    assert not [result for result in check_manifest(paths[0]) if not result.ok]


def test_no_golden_file_is_left_out() -> None:
    """A file that nothing reads would pass unseen."""
    assert uncovered(GOLDEN) == []


def _needs_library(name: str) -> None:
    if name in LIBRARY:
        pytest.importorskip("transformers", reason="needs the echomimic extra: pip install livemimic[echomimic]")
