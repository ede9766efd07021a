"""Every configuration that ships compiles for sm_90 into what it is meant to be; no GPU is needed for that."""

from __future__ import annotations

import pytest

PACKAGES = ("cross_attention", "fp8_linear", "qkv_rope", "residual_norm", "window_attention", "yuv")
ATTENTION = ("cross_attention", "window_attention")
SHARED_BYTES = 232_448  # what one block may use on sm_90


def test_every_package_is_compiled(sm90_reports) -> None:
    assert {report["package"] for report in sm90_reports} == set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_compiles_without_spills_and_on_tensor_cores(package: str, sm90_reports) -> None:
    reports = [report for report in sm90_reports if report["package"] == package]
    for report in reports:
        assert report["spills"] == 0, report
        assert report["shared"] <= SHARED_BYTES, report
        assert not report["serialized"], report
        assert (report["wgmma"] > 0) == report["tensor_cores"], report
        assert report["mma_sync"] == 0, report
    assert any(report["tensor_cores"] for report in reports) == (package in ATTENTION)
