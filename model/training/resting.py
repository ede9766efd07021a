"""A person's face at rest and what it takes to close its lips and lids.

Identities and the resting smile part some lips and leave some eyes ajar in a full blink; both are measured on the
landmarks once a person and corrected, so that weights mean the same on every face.
"""

from __future__ import annotations

import numpy as np

from .head import Head
from .people import FramePose

# The scanned neutral stares; presenters look relaxed and friendly.
_RESTING = {"eyeBlink": 0.06, "eyeSquint": 0.08, "mouthSmile": 0.09}
_LIP_OVERLAP = 0.10
_UPPER_LIP, _LOWER_LIP = [61, 62, 63], [67, 66, 65]
_UPPER_LIDS, _LOWER_LIDS = [37, 38, 43, 44], [41, 40, 47, 46]
# At full gaze (radians) the lids follow with this much of the look shapes.
_FULL_GAZE = 0.45


class RestingFace:
    def __init__(self, head: Head, identity: np.ndarray) -> None:
        self._head = head
        self._index = {name: i for i, name in enumerate(head.expression_names)}
        self.neutral = self._with_sealed_lips(identity)
        self._lid_gain = self._gain_that_closes()

    def weights(self, pose: FramePose) -> np.ndarray:
        """The frame's expression [57] on top of the resting face; lids follow the gaze."""
        weights = np.array(pose.expression, np.float32)
        look = "eyeLookDown" if pose.gaze_y < 0 else "eyeLookUp"
        for side in "LR":
            for name, rest in _RESTING.items():
                index = self._index[f"{name}_{side}"]
                weights[index] += rest * (1 - np.clip(weights[index], 0, 1))
            weights[self._index[f"eyeBlink_{side}"]] *= self._lid_gain
            index = self._index[f"{look}_{side}"]
            weights[index] = max(weights[index], min(abs(pose.gaze_y) / _FULL_GAZE, 1.0))
        return weights

    def lids(self, weights: np.ndarray) -> tuple[float, float]:
        """How closed the left and the right eye are, 0..1."""
        left, right = (float(np.clip(weights[self._index[f"eyeBlink_{side}"]], 0, 1)) for side in "LR")
        return left, right

    def _both(self, name: str, weight: float) -> np.ndarray:
        weights = np.zeros(len(self._index), np.float32)
        weights[[self._index[f"{name}_L"], self._index[f"{name}_R"]]] = weight
        return weights

    def _with_sealed_lips(self, identity: np.ndarray) -> np.ndarray:
        upper, lower = self._head.landmarks68[_UPPER_LIP], self._head.landmarks68[_LOWER_LIP]
        smiling = self._head.posed(identity, self._both("mouthSmile", _RESTING["mouthSmile"]))
        close = self._head.expression[self._index["mouthClose"]].reshape(-1, 3)
        gap = smiling[upper, 1] - smiling[lower, 1] + _LIP_OVERLAP
        share = gap / (close[lower, 1] - close[upper, 1])
        return identity + float(np.clip(share.max(), 0.0, 0.15)) * close

    def _gain_that_closes(self) -> float:
        upper, lower = self._head.landmarks68[_UPPER_LIDS], self._head.landmarks68[_LOWER_LIDS]
        closed = self._head.posed(self.neutral, self._both("eyeBlink", 1.0))
        before, after = ((points[upper, 1] - points[lower, 1]).mean() for points in (self.neutral, closed))
        return float(np.clip(before / (before - after), 0.95, 1.3))
