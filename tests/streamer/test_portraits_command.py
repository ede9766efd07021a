"""`livemimic portraits`: who is built in, and a person nobody has seen, whom the network animates like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.geometry import Geometry
from model.portraits import builtin_portraits, examine
from streamer.cli import main

HEAD_FILE = Path(__file__).resolve().parents[3] / "shared" / "assets" / "ict_facekit.npz"


def test_the_built_in_ones_are_listed_and_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["portraits"]) == 0
    assert capsys.readouterr().out.split() == list(builtin_portraits())
    assert main(["portraits", "--out", str(tmp_path / "faces")]) == 0
    assert {path.stem for path in (tmp_path / "faces").glob("*.png")} == set(builtin_portraits())


@pytest.mark.parametrize(
    ("said", "arguments"),
    [
        ("needs a --seed", ["--new", "--out", "OUT.png"]), ("needs a --seed", ["--new", "--seed", "3"]),
        ("belong to --new", ["--seed", "3"]), ("must end in .png", ["--new", "--seed", "3", "--out", "OUT.jpg"]),
        ("needs the head model", ["--new", "--seed", "3", "--out", "OUT.png"]),
        ("no head model at", ["--new", "--seed", "3", "--out", "OUT.png", "--head", "OUT.npz"]),
        ("is not a packed head model", ["--new", "--seed", "3", "--out", "OUT.png", "--head", __file__]),
    ],
)  # fmt: skip
def test_what_is_missing_is_said(said: str, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("moderngl")
    assert main(["portraits", *(a.replace("OUT", str(tmp_path / "o")) for a in arguments)]) == 1
    message = capsys.readouterr().err
    assert said in message and len(message.splitlines()) >= 2
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_new_person_is_drawn_found_and_animated(tmp_path: Path) -> None:
    """The seed is none of training's, which are 0 to 419 and 3000 to 3104, and below 3000 on a GPU."""
    pytest.importorskip("moderngl")
    if not HEAD_FILE.exists():
        pytest.skip(f"no head model at {HEAD_FILE}")
    from model.pipeline import AvatarPipeline

    out = tmp_path / "new.png"
    assert main(["portraits", "--new", "--seed", "7001", "--head", str(HEAD_FILE), "--out", str(out)]) == 0
    drawn = np.array(Image.open(out))
    for path in builtin_portraits().values():
        assert np.abs(drawn.astype(int) - np.array(Image.open(path).convert("RGB"))).mean() > 5
    portrait, report = examine(out.read_bytes())
    assert report.ok and np.array_equal(portrait, drawn)
    pipeline, geometry = AvatarPipeline.load(device="cpu"), Geometry()
    (frames,), _ = pipeline.step([pipeline.open(portrait)], [np.zeros(geometry.step_samples_16k, dtype=np.int16)], ["idle"])
    luma = portrait @ np.array([0.299, 0.587, 0.114]) * 219 / 255 + 16
    assert np.abs(frames[0, :256] - luma).mean() < 8
