"""The doctor names what is missing and says what to do; it never raises."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from streamer import doctor


def test_every_check_reports_once() -> None:
    names = [finding.check for finding in doctor.examine()]
    assert names == ["python", "torch", "codecs", "nvenc", "network", "udp", "weights", "browser", "gpu"]


def test_codecs_and_udp_work_here() -> None:
    assert doctor._codecs().status == "ok"
    assert doctor._udp().status == "ok"


def test_json_report_says_the_same_as_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    code = doctor.run(argparse.Namespace(json=True))
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is (code == 0)
    assert all(finding["advice"] for finding in report["findings"] if finding["status"] == "problem")


def test_problem_is_printed_with_advice(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    problem = doctor.Finding("weights", "problem", "gone", "fetch them")
    monkeypatch.setattr(doctor, "examine", lambda: iter([problem]))
    assert doctor.run(argparse.Namespace(json=False)) == 1
    printed = capsys.readouterr().out
    assert "PROBLEM" in printed and "-> fetch them" in printed


def test_broken_package_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> doctor.Finding:
        raise ImportError("libfoo.so.1: cannot open shared object file")

    monkeypatch.setattr(doctor, "_gpu", broken)
    assert list(doctor.examine())[-1].status == "problem"


def test_missing_and_damaged_weights_are_problems(tmp_path: Path) -> None:
    assert doctor._weights(tmp_path).status == "problem"
    save_file({"w": np.zeros(8, np.float32)}, tmp_path / "presenter.safetensors")
    assert "no portraits" in doctor._weights(tmp_path).message
    (tmp_path / "portraits").mkdir()
    (tmp_path / "portraits" / "ada.png").write_bytes(b"png")
    assert doctor._weights(tmp_path).status == "ok"
    whole = (tmp_path / "presenter.safetensors").read_bytes()
    (tmp_path / "presenter.safetensors").write_bytes(whole[:-4])
    assert doctor._weights(tmp_path).status == "problem"


@pytest.mark.parametrize(("address", "local"), [("127.0.0.1", True), ("fe80::1", True), ("192.168.1.7", False)])
def test_loopback_addresses_do_not_count_as_network(address: str, local: bool) -> None:
    assert doctor._is_local(address) is local
