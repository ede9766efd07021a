"""Every configuration that ships compiles for sm_90 into what it is meant to be; no GPU is needed for that."""

from __future__ import annotations

import pytest

PACKAGES = ["residual_norm", "qkv_rope", "window_attention", "cross_attention", "yuv", "fp8_linear"]
SHARED_BYTES = 232_448  # what one block may use on sm_90


@pytest.mark.parametrize("package", PACKAGES)
def test_compiles_without_spills_and_on_tensor_cores(package: str, compile_for_sm90) -> None:
    reports = compile_for_sm90(package)
    assert reports
    for report in reports:
        assert report["spills"] == 0, report
        assert report["shared"] <= SHARED_BYTES, report
        assert not report["serialized"], report
        assert (report["wgmma"] > 0) == report["tensor_cores"], report
        assert report["mma_sync"] == 0, report
