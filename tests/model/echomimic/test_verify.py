"""The command `livemimic verify` on folders that are right, wrong, damaged or strange."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model.echomimic.audio_tokens import to_frame_rate
from streamer.cli import main


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """A folder with one right golden file and a note."""
    folder = tmp_path / "golden"
    folder.mkdir()
    x = torch.randn(1, 9, 6)
    save_file({"case0.x": x, "case0.out": to_frame_rate(x, 5).contiguous()}, folder / "audio_interpolation.safetensors")
    (folder / "README.md").write_text("about")
    return folder


def test_a_right_folder_passes(golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each case is a row; the folder may be named itself or through its parent."""
    assert main(["verify", str(golden)]) == main(["verify", str(golden.parent)]) == 0
    out = capsys.readouterr().out
    assert "audio_interpolation" in out and "1 cases, 0 failed" in out


def test_a_wrong_value_fails(golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One number off is a row that says NO, and exit status 1."""
    x = torch.randn(1, 9, 6)
    save_file({"case0.x": x, "case0.out": to_frame_rate(x, 5).contiguous() + 1e-3}, golden / "audio_interpolation.safetensors")
    assert main(["verify", str(golden)]) == 1
    assert "NO" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["other.json", "vae.extra.safetensors", "notes.bin"])
def test_a_file_that_no_check_reads_fails(golden: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Silence about a file would look like proof."""
    (golden / name).write_text("{}")
    assert main(["verify", str(golden)]) == 1
    assert f"{name}" in capsys.readouterr().out


def test_a_damaged_file_is_one_failed_case_and_the_others_are_still_checked(golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No traceback; the message names the file."""
    (golden / "geometry.json").write_text("{broken")
    (golden / "manifest_vae.json").write_text(json.dumps({"conv1.weight": [[1], "float32"]}))
    (golden / "color_transfer.safetensors").write_bytes(b"nothing")
    assert main(["verify", str(golden)]) == 1
    assert "4 cases, 3 failed" in capsys.readouterr().out


def test_nothing_to_check_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong folder is the user's mistake: exit status 2."""
    assert main(["verify", str(tmp_path)]) == main(["verify", str(tmp_path / "absent")]) == 2
    assert "holds no golden files" in capsys.readouterr().err
