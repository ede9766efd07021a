"""How a photograph will do with the published models: the size of its video, where the voice acts, and advice in plain words."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from model.echomimic.framing import TOKEN_PIXELS, FaceBox, covering_grid, output_size
from model.portraits import PortraitReport, advice_on_light, advice_on_pose

SMALL_SIDE = 384  # a shorter side than this is far from what the models were made for
FEW_TOKENS = 4  # a mouth is about a third of a face's side: below, it is hardly a token
LONG_SHAPE = 2.2


@dataclass(frozen=True, slots=True)
class VideoReport:
    """Pixels of the video; the face in tokens of 16x16 pixels."""

    width: int
    height: int
    face_rows: int
    face_columns: int
    advice: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.advice

    def to_json(self) -> dict[str, object]:
        return {**asdict(self), "ok": self.ok}


def video_report(portrait: PortraitReport, area: int = 768 * 768) -> VideoReport:
    picture = (portrait.width, portrait.height)
    video = output_size(*picture, area)
    left, top, width, height = portrait.face
    box = FaceBox(max(top, 0), max(top + height, 0), max(left, 0), max(left + width, 0))
    first_row, last_row, first_column, last_column = covering_grid(box, picture, video)
    rows, columns = last_row - first_row, last_column - first_column
    advice = [*advice_on_light(portrait.brightness, portrait.unevenness), *advice_on_pose(portrait.yaw, portrait.pitch, portrait.roll)]
    if min(rows, columns) < FEW_TOKENS:
        advice.insert(
            0, f"The face will be {rows * TOKEN_PIXELS} pixels high: too small for lips that follow the voice. Crop closer to the head."
        )
    if min(video) < SMALL_SIDE:
        advice.append(f"The video will be {video[0]}x{video[1]}: pictures are never enlarged. A larger one gives more detail.")
    if max(video) > LONG_SHAPE * min(video):
        advice.append("The picture is very long. Crop it towards a square: most of the video would be background.")
    return VideoReport(*video, rows, columns, tuple(advice))
