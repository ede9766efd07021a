"""Style words: what a prompt asks of the embedded preset's motion, and the words for it that the network is told.

The network is told the words (`model/text.py`) and draws every motion it is told: so a word also becomes a change of the controls. The word
is understood here, the picture that follows from it is the network's. Every size lies within what training showed.
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


# Each with what asks for it. Left and right are the viewer's.
STYLES = {
    "smiling": r"smil(?:e|es|ing)|happ(?:y|ily)|cheerful|friendly",
    "serious": r"serious|stern|grave",
    "surprised": r"surprised|astonished",
    "nodding": r"nod|nods|nodding",
    "shaking": r"shak(?:es|ing) (?:his|her|their|the) head",
} | {where: rf"look(?:s|ing)? (?:to the )?{where}" for where in ("left", "right", "up", "down")} | {
    "calm": r"calm|still|quiet",
    "lively": r"lively|energetic|excited",
}  # fmt: skip
_DIRECTIONS = {
    "left": Manner(yaw=-0.9, gaze_x=-0.7), "right": Manner(yaw=0.9, gaze_x=0.7),
    "up": Manner(pitch=0.9, gaze_y=0.7), "down": Manner(pitch=-0.9, gaze_y=-0.7),
}  # fmt: skip


def styles_of(prompt: str) -> list[str]:
    """The styles that a prompt asks for, in the order of `STYLES`; other words say nothing. Of several directions the first counts."""
    text = " ".join(re.findall(r"[a-z]+", prompt.lower()))
    found = {style: match.start() for style, words in STYLES.items() if (match := re.search(rf"\b(?:{words})\b", text))}
    towards = sorted(found.keys() & _DIRECTIONS.keys(), key=lambda style: found[style])
    return [style for style in found if style not in towards[1:]]


def manner_of(prompt: str) -> Manner:
    """What the styles of a prompt add up to."""
    asked = styles_of(prompt)
    towards = next((_DIRECTIONS[style] for style in asked if style in _DIRECTIONS), Manner())
    return Manner(
        yaw=towards.yaw, pitch=towards.pitch, gaze_x=towards.gaze_x, gaze_y=towards.gaze_y,
        brow=0.5 * ("surprised" in asked) - 0.3 * ("serious" in asked),
        smile=0.5 * ("smiling" in asked) - 0.2 * ("serious" in asked),
        nod=0.7 * ("nodding" in asked), shake=0.7 * ("shaking" in asked),
        liveliness=1.0 + 0.6 * ("lively" in asked) - 0.4 * ("calm" in asked),
    )  # fmt: skip
