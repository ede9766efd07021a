"""Tuned launch parameters: taken from the file of the device at hand, and refused where they do not fit or were not measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from kernels import tuning

DEFAULTS = {"narrow": {"num_warps": 4}, "wide": {"num_warps": 8}}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """write(case, parameters) leaves a file for H200s, in a folder of its own."""
    monkeypatch.setattr(tuning, "FOLDER", tmp_path)

    def file(case: str, parameters: dict[str, int], *, measurement: bool = True) -> None:
        entry = {case: {"parameters": parameters, "median_us": 1.0}}
        (tmp_path / "h200.json").write_text(json.dumps({"measurement": measurement, "operations": {"some_operation": entry}}))

    return file


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch):
    """device(name) pretends that the current CUDA device is called that."""

    def use(name: str) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)

    return use


def test_the_defaults_hold_without_a_device(write) -> None:
    write("wide", {"num_warps": 16})
    assert tuning.parameters("some_operation", DEFAULTS) == DEFAULTS


@pytest.mark.parametrize(("name", "num_warps"), [("NVIDIA H200", 16), ("NVIDIA H200-SXM", 16), ("NVIDIA H100 80GB HBM3", 8)])
def test_a_file_serves_its_kind_of_device(name, num_warps, write, device) -> None:
    write("wide", {"num_warps": 16})
    device(name)
    assert tuning.parameters("some_operation", DEFAULTS) == {"narrow": {"num_warps": 4}, "wide": {"num_warps": num_warps}}
    assert tuning.parameters("another_operation", DEFAULTS) == DEFAULTS


def test_whatever_may_ship_is_listed_for_compilation(write) -> None:
    write("wide", {"num_warps": 16})
    assert list(tuning.every("some_operation", DEFAULTS)) == [*DEFAULTS.items(), ("wide", {"num_warps": 16})]


@pytest.mark.parametrize(
    ("case", "parameters", "measurement", "words"),
    [
        ("middle", {"num_warps": 4}, True, "the file gives 'middle'"),
        ("wide", {"num_warps": 4, "BLOCK": 64}, True, "BLOCK"),
        ("wide", {"num_warps": 16}, False, "holds no measurement"),
    ],
)
def test_refuses_what_does_not_fit(case, parameters, measurement, words, write, device) -> None:
    write(case, parameters, measurement=measurement)
    device("NVIDIA H200")
    with pytest.raises(ValueError, match=words):
        tuning.parameters("some_operation", DEFAULTS)
