"""Pictures become portraits: faces found, framed, checked, and everything unusable refused with its own code."""

from __future__ import annotations

import io
import pickle
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model import portraits
from model.errors import PortraitError
from model.facefinder import Face, find_faces
from model.framing import TARGET_BOX_HEIGHT, Framing, crop, framing_for

SHARED = Path(__file__).parents[3] / "shared" / "portraits"
PHOTOS = sorted(SHARED.glob("*.jpg"))
needs_photos = pytest.mark.skipif(not PHOTOS, reason="no photographs beside the checkout")
needs_builtin = pytest.mark.skipif(not portraits.builtin_portraits(), reason="no built-in presenters")


def encode(picture: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b"")]
    framed = [struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def refusal(data: bytes) -> PortraitError:
    with pytest.raises(PortraitError) as caught:
        portraits.examine(data)
    assert caught.value.message and caught.value.hint
    return caught.value


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.open(PHOTOS[-1]).convert("RGB")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"hello, this is text", id="text"),
        pytest.param(b"\xff\xd8\xff\xe0" + bytes(100), id="jpeg-start-only"),
        pytest.param(png_header(300, 300), id="png-without-pixels"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", id="svg"),
    ],
)
def test_bytes_that_are_no_picture_are_refused(data: bytes) -> None:
    assert refusal(data).code == "not_an_image"


def test_truncated_picture_is_refused() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    whole = encode(Image.fromarray(noise))
    assert refusal(whole[: len(whole) // 2]).code == "not_an_image"


def test_one_pixel_is_too_small() -> None:
    assert refusal(encode(Image.new("RGB", (1, 1)))).code == "picture_too_small"


@pytest.mark.parametrize("size", [(20_000, 20_000), (9_000, 9_000), (12_001, 100), (8_000, 7_000)])
def test_huge_picture_is_refused_from_its_header(size: tuple[int, int]) -> None:
    assert refusal(png_header(*size)).code == "picture_too_large"


def test_picture_without_a_face_is_refused() -> None:
    grey = Image.new("RGB", (300, 200), (90, 120, 60))
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (400, 300, 3), np.uint8))
    assert refusal(encode(grey)).code == "no_face"
    assert refusal(encode(noise)).code == "no_face"


def test_error_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(PortraitError("no_face", "a", "b")))
    assert (error.code, error.message, error.hint) == ("no_face", "a", "b")


def test_finding_faces_needs_neither_torch_nor_opencv() -> None:
    code = "import sys, model.portraits; sys.exit(bool({'torch', 'cv2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_crop_inside_the_picture_keeps_pixels() -> None:
    pixels = np.random.default_rng(2).integers(0, 255, (300, 400, 3), np.uint8)
    portrait = crop(Image.fromarray(pixels), Framing(20, 30, 256))
    assert np.array_equal(np.asarray(portrait), pixels[30:286, 20:276])


def test_crop_outside_the_picture_draws_its_edge_out() -> None:
    pixels = np.zeros((200, 200, 3), np.uint8)
    pixels[:, :100] = (200, 0, 0)
    pixels[:, 100:] = (0, 0, 200)
    portrait = np.asarray(crop(Image.fromarray(pixels), Framing(-60, -20, 320)))
    assert portrait.shape == (256, 256, 3)
    assert portrait[128, 2].tolist() == [200, 0, 0]
    assert portrait[2, 253].tolist() == [0, 0, 200]


def test_framing_reports_what_is_missing() -> None:
    assert Framing(0, 0, 256).missing(256, 256) == 0
    assert Framing(-128, 0, 256).missing(512, 512) == pytest.approx(0.5)


@needs_photos
@pytest.mark.parametrize("path", PHOTOS, ids=lambda path: path.stem)
def test_photograph_is_framed(path: Path) -> None:
    portrait, report = portraits.examine(path.read_bytes())
    assert portrait.shape == (256, 256, 3) and portrait.dtype == np.uint8
    assert report.score >= 0.8
    (face,) = find_faces(Image.fromarray(portrait))
    assert face.height == pytest.approx(TARGET_BOX_HEIGHT, rel=0.08)
    assert (face.left + face.right) / 2 == pytest.approx(128, abs=5)
    # Preparing a prepared portrait changes nothing.
    again, _ = portraits.examine(encode(Image.fromarray(portrait)))
    assert np.array_equal(again, portrait)


@needs_photos
def test_two_faces_are_refused_but_a_small_bystander_is_not(photo: Image.Image) -> None:
    width, height = photo.size
    pair = Image.new("RGB", (2 * width, height))
    pair.paste(photo, (0, 0))
    pair.paste(photo, (width, 0))
    assert refusal(encode(pair)).code == "several_faces"
    pair.paste((90, 90, 90), (width, 0, 2 * width, height))
    pair.paste(photo.resize((width // 3, height // 3)), (width + width // 3, height // 3))
    assert len(find_faces(pair)) >= 1
    assert portraits.preflight(encode(pair)).face[0] < width


@needs_photos
def test_small_face_far_away_is_found(photo: Image.Image) -> None:
    scene = Image.new("RGB", (1200, 800), (120, 130, 140))
    scene.paste(photo.resize((photo.width // 3, photo.height // 3)), (700, 300))
    report = portraits.preflight(encode(scene))
    assert report.face[0] > 700 and report.face[1] > 300


@needs_photos
def test_sideways_phone_picture_is_turned_upright(photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = photo.transpose(Image.Transpose.ROTATE_90)
    turned, report = portraits.examine(encode(stored, "JPEG", exif=exif.tobytes(), quality=95))
    straight, _ = portraits.examine(encode(photo))
    assert (report.width, report.height) == photo.size
    assert np.abs(turned.astype(int) - straight.astype(int)).mean() < 6


@needs_photos
@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA", "CMYK", "I;16"])
def test_every_colour_mode_becomes_rgb(photo: Image.Image, mode: str) -> None:
    deep = Image.fromarray(np.asarray(photo.convert("L"), np.uint16) * 257)  # Pillow cannot convert to this mode
    picture = deep if mode == "I;16" else photo.convert(mode)
    portrait = portraits.prepare_portrait(encode(picture, "JPEG" if mode == "CMYK" else "PNG"))
    assert portrait.shape == (256, 256, 3)
    assert 60 < portrait.mean() < 200


@needs_photos
def test_report_counts_in_pixels_of_the_file(photo: Image.Image) -> None:
    double = photo.resize((photo.width * 3, photo.height * 3))
    small, large = portraits.preflight(encode(photo)), portraits.preflight(encode(double, "JPEG"))
    assert (large.width, large.height) == double.size
    assert large.face[3] == pytest.approx(3 * small.face[3], rel=0.05)
    assert large.enlarged == pytest.approx(small.enlarged / 3, abs=0.02)


@needs_photos
def test_dark_and_leaning_picture_gets_advice(photo: Image.Image) -> None:
    dark = photo.point(lambda value: value // 4)
    assert any("dark" in line for line in portraits.preflight(encode(dark)).advice)
    leaning = photo.rotate(25, resample=Image.Resampling.BICUBIC)
    report = portraits.preflight(encode(leaning))
    assert any("shoulder" in line for line in report.advice) and not report.ok
    assert report.to_json()["ok"] is False


@needs_builtin
@pytest.mark.parametrize("name", portraits.builtin_portraits())
def test_builtin_portrait_passes_through_unchanged(name: str) -> None:
    path = portraits.builtin_portraits()[name]
    portrait, report = portraits.examine(path.read_bytes())
    assert np.array_equal(portrait, np.asarray(Image.open(path).convert("RGB")))
    assert report.ok, report.advice


@needs_builtin
def test_a_portrait_of_another_size_is_framed_alike() -> None:
    """Twice the pixels of the same square; also where the picture ends within it."""
    for margin in (0, 40):
        picture = Image.open(next(iter(portraits.builtin_portraits().values()))).convert("RGB").crop((margin, margin, 256, 256))
        small, large = (portraits.examine(encode(picture), side)[0] for side in (256, 512))
        assert large.shape == (512, 512, 3)
        halved = np.asarray(Image.fromarray(large).resize((256, 256), Image.Resampling.BOX))
        assert np.abs(halved.astype(int) - small).mean() < 2.5


def test_face_boxes_overlap_by_the_smaller_area() -> None:
    points = np.zeros((6, 2))
    outer, inner = Face(0, 0, 10, 10, 1.0, points), Face(2, 2, 6, 6, 1.0, points)
    apart = Face(20, 20, 30, 30, 1.0, points)
    assert outer.overlap(inner) == 1.0
    assert outer.overlap(apart) == 0.0
    assert framing_for(outer).scale == pytest.approx(TARGET_BOX_HEIGHT / 10)
