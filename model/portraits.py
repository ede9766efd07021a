"""From the bytes a person uploads to the picture the model animates, with a report that says how well it will do.

`prepare_portrait` gives uint8 [256, 256, 3]; `preflight` gives the face, its size, light and pose with advice in plain
words; `examine` gives both for one decode. Size limits are enforced from the file's header, before a pixel is decoded.
Takes 0.1 to 0.3 s of one core and needs no torch.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from model.errors import PortraitError
from model.facefinder import Face, find_faces
from model.framing import SIDE, Framing, crop, framing_for

PORTRAITS = Path(__file__).with_name("weights") / "portraits"
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MIN_SIDE = 64
MAX_SIDE = 12_000
MAX_PIXELS = 50_000_000
WORK_SIDE = 2048  # larger pictures are reduced to this before the face is searched
MIN_FACE = 40
SOFT_FACE = 80
RIVAL_FACE = 0.6  # a second face counts when it is at least this much of the largest
DARK, BRIGHT, UNEVEN, MISSING = 55, 215, 60, 0.35
TURNED_DEG, ROLLED_DEG = 25, 12
# How far the nose tip stands out, and where it is when the face looks straight ahead (from eyes 0 to mouth 1).
NOSE_DEPTH_BY_EYES, NOSE_DEPTH_BY_MOUTH, NOSE_REST = 0.6, 0.52, 0.55
BACKGROUND = (128, 128, 128, 255)  # behind a picture with transparency
EXIF_ORIENTATION = 0x0112
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error)  # what Pillow's decoders raise on bad bytes


@dataclass(frozen=True, slots=True)
class PortraitReport:
    """What a picture offers. Pixels are those of the upright picture; angles are rough, in degrees."""

    width: int
    height: int
    face: tuple[int, int, int, int]  # left, top, width, height
    score: float  # the face finder's confidence, 0..1
    enlarged: float  # portrait pixels for one picture pixel; above 1 detail is missing
    brightness: float  # mean luma of the face, 0..255
    unevenness: float  # luma of the lighter half of the face minus that of the darker one
    missing: float  # share of the portrait that lies outside the picture and is made up from its edge
    yaw: float  # turned to the picture's right is positive
    pitch: float  # looking down is positive
    roll: float  # clockwise is positive
    advice: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.advice

    def to_json(self) -> dict[str, object]:
        return {**asdict(self), "ok": self.ok}


def builtin_portraits() -> dict[str, Path]:
    """Name -> PNG file of the presenters that ship with the model, in the order of their names."""
    return {path.stem: path for path in sorted(PORTRAITS.glob("*.png"))}


def open_picture(data: bytes) -> Image.Image:
    """The upright picture, at most WORK_SIDE a side. Raises PortraitError for what is no picture."""
    return _decode(data)[0]


def open_portrait(data: bytes) -> tuple[Image.Image, Face]:
    """The upright picture itself, uncropped, and its face. Raises PortraitError."""
    picture, _ = _decode(data)
    return picture, _one_face(picture)


def prepare_portrait(data: bytes) -> np.ndarray:
    """uint8 [256, 256, 3] RGB with the face where the model expects it. Raises PortraitError."""
    return examine(data)[0]


def preflight(data: bytes) -> PortraitReport:
    """How well the picture will do. Raises PortraitError where it cannot be used at all."""
    return examine(data)[1]


def examine(data: bytes, side: int = SIDE) -> tuple[np.ndarray, PortraitReport]:
    """The portrait with `side` pixels a side, and the report. Raises PortraitError."""
    picture, full_size = _decode(data)
    face = _one_face(picture)
    framing = framing_for(face)
    unchanged = picture.size == (SIDE, SIDE) and (framing.is_identity or picture.tobytes() in _builtin_pixels())
    if unchanged:
        framing = Framing(0, 0, SIDE)
    portrait = np.array(picture if unchanged and side == SIDE else crop(picture, framing, side))
    return portrait, _report(picture, full_size, face, framing)


def _decode(data: bytes) -> tuple[Image.Image, tuple[int, int]]:
    """Upright RGB picture of at most WORK_SIDE, and the upright size that the file has."""
    hint = "Use a JPEG, PNG or WebP file; export a HEIC or RAW picture as JPEG first."
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large("Over 80 megapixels") from error
    except UNREADABLE as error:
        raise PortraitError("not_an_image", "The file is not a picture this server can read.", hint) from error
    width, height = picture.size
    _check_size(width, height)
    try:
        picture.draft("RGB", (WORK_SIDE, WORK_SIDE))  # a JPEG is decoded at half or a quarter of its size
        picture.load()
        sideways = picture.getexif().get(EXIF_ORIENTATION, 1) >= 5
        upright = _to_rgb(ImageOps.exif_transpose(picture))
    except UNREADABLE as error:
        raise PortraitError("not_an_image", "The picture is damaged or cut off.", hint) from error
    upright.thumbnail((WORK_SIDE, WORK_SIDE), Image.Resampling.LANCZOS)
    return upright, (height, width) if sideways else (width, height)


def _check_size(width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE:
        raise PortraitError(
            "picture_too_small",
            f"The picture is {width}x{height} pixels; at least {MIN_SIDE}x{MIN_SIDE} are needed.",
            "Use a picture in which the face alone is 100 pixels high or more.",
        )
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise _too_large(f"{width}x{height} pixels")


def _too_large(size: str) -> PortraitError:
    limit = f"{MAX_PIXELS // 1_000_000} megapixels and {MAX_SIDE} pixels a side"
    return PortraitError(
        "picture_too_large",
        f"{size} is more than the limit of {limit}.",
        "Make it smaller first; 1024 pixels are enough.",
    )


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layer = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, BACKGROUND), layer).convert("RGB")


def _one_face(picture: Image.Image) -> Face:
    faces = find_faces(picture)
    if not faces:
        raise PortraitError(
            "no_face",
            "No face was found in the picture.",
            "Use a picture that shows one face from the front, in good light, not covered, upright.",
        )
    rivals = [face for face in faces if face.height >= RIVAL_FACE * faces[0].height]
    if len(rivals) > 1:
        raise PortraitError(
            "several_faces",
            f"There are {len(rivals)} faces in the picture, and it is not clear which one is meant.",
            "Cut the picture so that one face is left, or clearly larger than the others.",
        )
    if faces[0].height < MIN_FACE:
        raise PortraitError(
            "picture_too_small",
            f"The face is only {faces[0].height:.0f} pixels high; at least {MIN_FACE} are needed.",
            "Use a closer or larger picture of the face.",
        )
    return faces[0]


@cache
def _builtin_pixels() -> frozenset[bytes]:
    return frozenset(Image.open(path).convert("RGB").tobytes() for path in builtin_portraits().values())


def _report(picture: Image.Image, full_size: tuple[int, int], face: Face, framing: Framing) -> PortraitReport:
    ratio = full_size[0] / picture.width
    yaw, pitch, roll = _pose(face)
    brightness, unevenness = _light(picture, face)
    missing = framing.missing(*picture.size)
    left, top, right, bottom = (round(value * ratio) for value in (face.left, face.top, face.right, face.bottom))
    return PortraitReport(
        width=full_size[0],
        height=full_size[1],
        face=(left, top, right - left, bottom - top),
        score=round(face.score, 2),
        enlarged=round(framing.scale / ratio, 2),
        brightness=round(brightness, 1),
        unevenness=round(unevenness, 1),
        missing=round(missing, 2),
        yaw=round(yaw, 1),
        pitch=round(pitch, 1),
        roll=round(roll, 1),
        advice=(
            *_advice_on_framing(face.height * ratio, missing),
            *advice_on_light(brightness, unevenness),
            *advice_on_pose(yaw, pitch, roll),
        ),
    )


def _pose(face: Face) -> tuple[float, float, float]:
    """Yaw, pitch and roll from five points: the nose tip sticks out, so it moves against eyes and mouth."""
    left_eye, right_eye, nose, mouth = face.points[:4]
    middle = (left_eye + right_eye) / 2
    across, down = right_eye - left_eye, mouth - middle
    # The nose in the axes of the face: `aside` in eye distances, `lowered` from the eyes (0) to the mouth (1).
    aside, lowered = np.linalg.lstsq(np.stack([across, down], axis=1), nose - middle, rcond=None)[0]
    yaw = np.degrees(np.arctan(aside / NOSE_DEPTH_BY_EYES))
    pitch = np.degrees(np.arcsin(np.clip((lowered - NOSE_REST) / NOSE_DEPTH_BY_MOUTH, -1, 1)))
    roll = np.degrees(np.arctan2(across[1], across[0]))
    return float(yaw), float(pitch), float(roll)


def _light(picture: Image.Image, face: Face) -> tuple[float, float]:
    box = (round(face.left), round(face.top), round(face.right), round(face.bottom))
    luma = np.asarray(picture.crop(box).convert("L"), np.float32)
    middle = luma.shape[1] // 2
    return float(luma.mean()), abs(float(luma[:, :middle].mean()) - float(luma[:, middle:].mean()))


def _advice_on_framing(face_height: float, missing: float) -> Iterator[str]:
    if face_height < SOFT_FACE:
        yield f"The face is {face_height:.0f} pixels high and will look soft; {SOFT_FACE} or more is better."
    if missing > MISSING:
        yield "The picture ends close to the head. Leave room above the hair, beside it and down to the shoulders."


def advice_on_light(brightness: float, unevenness: float) -> Iterator[str]:
    if brightness < DARK:
        yield "The face is dark. More light from the front helps."
    if brightness > BRIGHT:
        yield "The face is very bright and may lack detail. Softer light helps."
    if unevenness > UNEVEN:
        yield "One side of the face is much darker than the other. Even light from the front helps."


def advice_on_pose(yaw: float, pitch: float, roll: float) -> Iterator[str]:
    if abs(yaw) > TURNED_DEG:
        yield "The head is turned to the side. A look straight into the camera works best."
    if abs(pitch) > TURNED_DEG:
        yield f"The head is tilted {'down' if pitch > 0 else 'up'}. Hold the camera at eye level."
    if abs(roll) > ROLLED_DEG:
        yield "The head leans to one shoulder. Turn the picture until the eyes are level."
