"""What a stretch of a clip is like, in the style words that a prompt may use (`model/text.py`).

Limits are where the tenth or fifth of the training's stretches begins that is most like it; smiles are in nearly every second.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.controls import CONTROL_NAMES
from model.motion import NUM_HEAD_CONTROLS

_SMILE, _BROW, _NOD, _TURN, _GAZE = 0.35, 0.2, 0.06, 0.6, 0.3
_CALM, _LIVELY = 0.028, 0.055  # a frame, of all of the head's controls together


def styles_seen(controls_FM: Tensor) -> list[str]:
    """Of controls [F, NUM_CONTROLS], a second or so of them; "neutral" where nothing stands out."""
    column = {name: controls_FM[:, i] for i, name in enumerate(CONTROL_NAMES)}
    mean = {name: float(values.mean()) for name, values in column.items()}
    speed = float(controls_FM[:, :NUM_HEAD_CONTROLS].diff(dim=0).abs().sum(dim=1).mean())
    shown = {
        "smiling": mean["smile"] > _SMILE,
        "serious": mean["brow"] < -_BROW,
        "surprised": mean["brow"] > _BROW,
        "nodding": _swing(column["pitch"]) > _NOD,
        "left": mean["yaw"] < -_TURN or mean["gaze_x"] < -_GAZE,
        "right": mean["yaw"] > _TURN or mean["gaze_x"] > _GAZE,
        "up": mean["pitch"] > _TURN or mean["gaze_y"] > _GAZE,
        "down": mean["pitch"] < -_TURN or mean["gaze_y"] < -_GAZE,
        "calm": speed < _CALM,
        "lively": speed > _LIVELY,
    }
    if shown["left"] and shown["right"]:  # the head one way, the eyes another
        shown["left"] = shown["right"] = False
    if shown["up"] and shown["down"]:
        shown["up"] = shown["down"] = False
    return [style for style, is_so in shown.items() if is_so] or ["neutral"]


def _swing(values_F: Tensor) -> float:
    """How far values go to and fro: their deviation from a straight line."""
    time = torch.linspace(-1.0, 1.0, len(values_F))
    line = values_F.mean() + time * (values_F * time).mean() / time.square().mean()
    return float((values_F - line).square().mean().sqrt())
