"""`livemimic preflight`: a report for what can be used, a reason for what cannot, and text or JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.echomimic.framing import face_box
from model.echomimic.preflight import video_report
from model.facefinder import Face
from model.portraits import PortraitReport, builtin_portraits
from streamer.cli import main

PHOTOS = sorted((Path(__file__).parents[3] / "shared" / "portraits").glob("*.jpg"))
GOOD = PortraitReport(
    width=1000, height=1000, face=(350, 300, 300, 300), score=0.9, enlarged=0.4, brightness=120.0, unevenness=10.0, missing=0.0, yaw=0.0,
    pitch=0.0, roll=0.0, advice=(),
)  # fmt: skip


def test_pictures_are_reported_and_unusable_ones_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that cannot be used does not hide the others; it decides the exit status."""
    good = next(iter(builtin_portraits().values()))
    Image.new("RGB", (300, 300), (90, 120, 90)).save(tmp_path / "wall.png")
    two = Image.new("RGB", (512, 256))
    for i, path in enumerate(list(builtin_portraits().values())[:2]):
        two.paste(Image.open(path), (256 * i, 0))
    two.save(tmp_path / "two.png")
    assert main(["preflight", str(good)]) == 0
    assert main(["preflight", str(good), str(tmp_path / "wall.png"), str(tmp_path / "two.png")]) == 1
    out = capsys.readouterr().out
    assert "No face was found" in out and "2 faces" in out and "a video of 256x256" in out
    assert main(["preflight", str(good), str(tmp_path / "wall.png"), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found[str(good)]["usable"] and found[str(good)]["video"]["width"] == 256
    assert found[str(tmp_path / "wall.png")]["code"] == "no_face"
    assert main(["preflight", str(tmp_path / "absent.png")]) == 2


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, ""), ({"width": 300, "height": 300, "face": (100, 100, 90, 90)}, "never enlarged"),
        ({"face": (100, 100, 60, 60)}, "Crop closer"), ({"brightness": 30.0}, "dark"), ({"unevenness": 90.0}, "One side"),
        ({"yaw": 40.0}, "turned to the side"), ({"width": 3000}, "Crop it towards a square"),
    ],
)  # fmt: skip
def test_advice_for_the_published_models(changes: dict[str, object], says: str) -> None:
    """A good picture gets none; the others get what would help."""
    report = video_report(replace(GOOD, **changes))
    assert report.ok == (not says) and says in " ".join(report.advice)


def test_a_face_that_is_cut_off_stays_inside_the_picture() -> None:
    """A box above or left of the picture would count its tokens from the other end."""
    face = Face(-20.0, -30.0, 100.0, 90.0, 0.9, np.zeros((6, 2)))
    assert face_box(face) == (0.0, 90.0, 0.0, 100.0)
    assert video_report(replace(GOOD, face=(-20, -30, 400, 430))).face_rows == 400 * 768 // 1000 // 16


@pytest.mark.skipif(not PHOTOS, reason="no photographs beside the checkout")
def test_photographs_have_one_face_and_no_complaint_but_light(capsys: pytest.CaptureFixture[str]) -> None:
    """Six pictures, one of them painted: each has a face of ten tokens or more a side."""
    assert main(["preflight", "--json", *map(str, PHOTOS)]) == 0
    found = json.loads(capsys.readouterr().out)
    for entry in found.values():
        assert min(entry["video"]["face_rows"], entry["video"]["face_columns"]) >= 10
        assert all("darker than the other" in line for line in entry["video"]["advice"])
