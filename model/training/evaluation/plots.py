"""Pictures for people to look at: contact sheets, mouths enlarged, and the curves of the lips."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from model.controls import CONTROL_NAMES
from model.geometry import FPS
from model.training.clips import Clip
from model.training.evaluation.lips import told_closures
from model.training.visemes import aperture

_FONT_SIZE, _LABEL_WIDTH, _TITLE_HEIGHT = 16, 110, 26
_MOUTH_SCALE = 3
_AROUND_MOUTH = (slice(116, 206), slice(80, 176))  # more than the mouth's box: heads move
_PANEL_HEIGHT, _SECOND, _LEGEND_WIDTH = 150, 160, 520  # pixels
_COLOURS = ((20, 20, 20), (150, 150, 150), (215, 30, 40), (60, 120, 220))


def moments(clip: Clip, count: int) -> list[int]:
    """Frames worth looking at, in order: a blink and a bilabial where there are any, then wide openings far from each other."""
    opening, blink = aperture(clip.mouth), clip.controls[:, CONTROL_NAMES.index("blink")]
    picked = [int(blink.argmax())] if blink.max() > 0.9 else []
    picked += [first for first, _ in told_closures(clip.mouth)[:2]]
    for frame in np.argsort(-opening):
        if len(picked) < count and all(abs(frame - other) > 5 for other in picked):
            picked.append(int(frame))
    return sorted(set(picked))


def sheet(rows: Sequence[tuple[str, np.ndarray]], columns: Sequence[str]) -> Image.Image:
    """A grid of pictures: rows of (label, uint8 RGB [N, H, W, 3]), a title a column."""
    height, width = rows[0][1].shape[1:3]
    page = Image.new("RGB", (_LABEL_WIDTH + width * len(columns), _TITLE_HEIGHT + height * len(rows)), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(_FONT_SIZE)
    for column, title in enumerate(columns):
        draw.text((_LABEL_WIDTH + column * width + 4, 3), title, "black", font)
    for row, (label, pictures) in enumerate(rows):
        top = _TITLE_HEIGHT + row * height
        draw.text((4, top + height // 2 - _FONT_SIZE), label, "black", font)
        for column, picture in enumerate(pictures):
            page.paste(Image.fromarray(picture), (_LABEL_WIDTH + column * width, top))
    return page


def mouths(frames: np.ndarray) -> np.ndarray:
    """The mouth of each frame, enlarged without smoothing: what is jagged or smeared should look so."""
    return frames[:, *_AROUND_MOUTH].repeat(_MOUTH_SCALE, axis=1).repeat(_MOUTH_SCALE, axis=2)


def lip_curves(panels: Sequence[tuple[str, dict[str, np.ndarray], list[tuple[int, int]]]]) -> Image.Image:
    """One panel a clip: (title, curves [F] by name, about 0..1, stretches of bilabials, drawn as grey bars)."""
    seconds = max(len(curve) for _, curves, _ in panels for curve in curves.values()) / FPS
    page = Image.new("RGB", (max(round(seconds * _SECOND) + 20, _LEGEND_WIDTH), (_PANEL_HEIGHT + _TITLE_HEIGHT) * len(panels)), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(_FONT_SIZE)
    spacing = _SECOND / FPS
    for row, (title, curves, closures) in enumerate(panels):
        top = row * (_PANEL_HEIGHT + _TITLE_HEIGHT)
        base = top + _TITLE_HEIGHT + _PANEL_HEIGHT - 12
        for first, stop in closures:
            left, right = (10 + (frame - 0.5) * spacing for frame in (first, stop))
            draw.rectangle((left, top + _TITLE_HEIGHT, right, base), (232, 232, 232))
        draw.text((10, top + 3), title, "black", font)
        x = 20 + draw.textlength(title, font)
        for (name, curve), colour in zip(curves.items(), _COLOURS, strict=False):
            draw.text((x, top + 3), name, colour, font)
            x += draw.textlength(name, font) + 20
            points = [(10 + i * spacing, base - min(value / 1.4, 1.0) * (_PANEL_HEIGHT - 14)) for i, value in enumerate(curve)]
            draw.line(points, colour, width=2)
        draw.line((10, base, page.width - 10, base), (120, 120, 120))
        for second in range(int(seconds) + 1):
            draw.line((10 + second * _SECOND, base, 10 + second * _SECOND, base + 5), (120, 120, 120))
    return page
