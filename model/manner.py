"""What a prompt asks of the embedded preset's motion: words that set the controls the network is conditioned on.

The network was trained on few style words (`model/text.py`), but draws every motion it is told. So a word becomes a change of the
controls: the word is understood here, the picture that follows from it is the network's. Every size lies within what training showed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Manner:
    """Added to the controls, in their units; nod and shake are amplitudes of the head's pitch and yaw; `liveliness` scales the sway."""

    yaw: float = 0.0
    pitch: float = 0.0
    gaze_x: float = 0.0
    gaze_y: float = 0.0
    brow: float = 0.0
    smile: float = 0.0
    nod: float = 0.0
    shake: float = 0.0
    liveliness: float = 1.0


# Each with the words that ask for it. Left and right are the viewer's.
_SMILING, _SERIOUS, _SURPRISED = r"smil(?:e|es|ing)|happ(?:y|ily)|cheerful|friendly", r"serious|stern|grave", r"surprised|astonished"
_NODDING, _SHAKING = r"nod|nods|nodding", r"shak(?:es|ing) (?:his|her|their|the) head"
_CALM, _LIVELY = r"calm|still|quiet", r"lively|energetic|excited"
_LOOKING = r"look(?:s|ing)? (?:to the )?(left|right|up|down)"
_DIRECTIONS = {
    "left": Manner(yaw=-0.9, gaze_x=-0.7), "right": Manner(yaw=0.9, gaze_x=0.7),
    "up": Manner(pitch=0.9, gaze_y=0.7), "down": Manner(pitch=-0.9, gaze_y=-0.7),
}  # fmt: skip


def manner_of(prompt: str) -> Manner:
    """What the known words of a prompt add up to; other words change nothing. Of several directions the first counts."""
    text = " ".join(re.findall(r"[a-z]+", prompt.lower()))

    def asked(words: str) -> bool:
        return re.search(rf"\b(?:{words})\b", text) is not None

    looking = re.search(rf"\b{_LOOKING}\b", text)
    towards = _DIRECTIONS[looking[1]] if looking else Manner()
    return Manner(
        yaw=towards.yaw, pitch=towards.pitch, gaze_x=towards.gaze_x, gaze_y=towards.gaze_y,
        brow=0.5 * asked(_SURPRISED) - 0.3 * asked(_SERIOUS),
        smile=0.5 * asked(_SMILING) - 0.2 * asked(_SERIOUS),
        nod=0.7 * asked(_NODDING), shake=0.7 * asked(_SHAKING),
        liveliness=1.0 + 0.6 * asked(_LIVELY) - 0.4 * asked(_CALM),
    )  # fmt: skip
