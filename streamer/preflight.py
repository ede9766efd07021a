"""`livemimic preflight`: whether a photograph will do, what it lacks, and what each preset makes of it, in plain words."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator

from model.echomimic.preflight import VideoReport, video_report
from model.errors import PortraitError
from model.portraits import BRIGHT, DARK, UNEVEN, PortraitReport, examine

STRAIGHT_DEG = 8  # the angles are rough


def run(args: argparse.Namespace) -> int:
    """1 when a picture cannot be used, 2 when a file cannot be read."""
    found: dict[str, dict[str, object]] = {}
    for path in args.files:
        try:
            data = path.read_bytes()
        except OSError as error:
            print(f"livemimic preflight: cannot read {path}: {error.strerror}", file=sys.stderr)
            return 2
        try:
            picture = examine(data)[1]
        except PortraitError as error:
            found[str(path)] = {"usable": False, "code": error.code, "message": error.message, "hint": error.hint}
            lines = [f"NOT USABLE: {error.message}", f"-> {error.hint}"]
        else:
            video = video_report(picture)
            found[str(path)] = {"usable": True, "picture": picture.to_json(), "video": video.to_json()}
            lines = [*_facts(picture, video), *_advice(picture, video)]
        if not args.json:
            print("\n  ".join((f"{path}", *lines)))
    if args.json:
        print(json.dumps(found, indent=2))
    return 0 if all(entry["usable"] for entry in found.values()) else 1


def _facts(picture: PortraitReport, video: VideoReport) -> Iterator[str]:
    left, top, width, height = picture.face
    yield f"picture   {picture.width}x{picture.height} pixels"
    yield f"face      one, {width}x{height} pixels, {left} from the left and {top} from the top; {picture.score:.0%} sure"
    yield f"pose      {_pose(picture)}"
    yield f"light     {_light(picture)}"
    scaled = "enlarged" if picture.enlarged > 1 else "shrunk"
    yield f"presenter a portrait of 256x256, for which the head is {scaled} to {picture.enlarged:.0%}"
    yield (
        f"echomimic a video of {video.width}x{video.height}; with preview the voice acts on {video.face_columns}x{video.face_rows} "
        f"of {video.width // 16}x{video.height // 16} places"
    )


def _advice(picture: PortraitReport, video: VideoReport) -> Iterator[str]:
    """What both presets gain from is said once."""
    both = [line for line in picture.advice if line in video.advice]
    if picture.ok and video.ok:
        yield "Good for every preset."
    yield from (f"-> {line}" for line in both)
    yield from (f"-> presenter: {line}" for line in picture.advice if line not in both)
    yield from (f"-> echomimic: {line}" for line in video.advice if line not in both)


def _pose(picture: PortraitReport) -> str:
    angles = {
        ("turned to the right", "turned to the left"): picture.yaw,
        ("looking down", "looking up"): picture.pitch,
        ("leaning right", "leaning left"): picture.roll,
    }
    words = [
        f"{positive if angle > 0 else negative} by about {abs(angle):.0f} degrees"
        for (positive, negative), angle in angles.items()
        if abs(angle) > STRAIGHT_DEG
    ]
    return ", ".join(words) or "straight ahead"


def _light(picture: PortraitReport) -> str:
    level = "dark" if picture.brightness < DARK else "very bright" if picture.brightness > BRIGHT else "good"
    return f"{level}, {'uneven' if picture.unevenness > UNEVEN else 'even'} (brightness {picture.brightness:.0f} of 255)"
