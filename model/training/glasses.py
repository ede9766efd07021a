"""Thin spectacle frames fitted to a face's eyes and ears."""

from __future__ import annotations

import numpy as np

from .meshes import Mesh, join, tube
from .people import Person


def fit(person: Person, landmarks: np.ndarray) -> Mesh | None:
    """The frame mesh for neutral `landmarks` [68, 3]; None when the person wears none."""
    if person.glasses == "none":
        return None
    colour = np.array(person.glasses_colour)
    eyes = [landmarks[42:48].mean(0), landmarks[36:42].mean(0)]
    height = (eyes[0][1] + eyes[1][1]) / 2 - 0.15
    front = max(landmarks[27, 2] + 0.25, landmarks[[37, 38, 43, 44], 2].max() + 0.9)
    half = abs(eyes[0][0] - eyes[1][0]) / 2
    width, tall, power = (2.15, 1.95, 2.1) if person.glasses == "round" else (2.35, 1.7, 3.6)
    turn = np.linspace(0, 2 * np.pi, 49)
    cosine, sine = np.cos(turn), np.sin(turn)
    round_x = np.sign(cosine) * np.abs(cosine) ** (2 / power)
    round_y = np.sign(sine) * np.abs(sine) ** (2 / power)
    parts = []
    for side in (-1, 1):
        x = side * (half + 0.05) + width * round_x
        depth = front - 0.035 * (np.abs(x) - 1.0).clip(0) ** 2
        parts.append(tube(np.stack([x, height + tall * round_y, depth], 1), 0.13, colour, 0.5))
        outer = side * (half + 0.05 + width)
        ear = landmarks[0 if side < 0 else 16]
        arm = np.array([
            [outer, height + 0.75, front - 0.035 * (abs(outer) - 1) ** 2],
            [outer + side * 0.35, height + 0.85, front - 1.3],
            [ear[0] * 1.04, height + 0.9, ear[2] + 1.0],
            [ear[0] * 1.04, height + 0.7, ear[2] - 4.0],
        ])  # fmt: skip
        steps = np.linspace(0, 3, 20)
        parts.append(tube(np.stack([np.interp(steps, range(4), arm[:, k]) for k in range(3)], 1), 0.12, colour, 0.5))
    gap = half - width + 0.05
    t = np.linspace(-1, 1, 9)
    arch = 1 - t**2
    parts.append(tube(np.stack([t * gap, height + 0.55 + 0.25 * arch, front + 0.15 * arch], 1), 0.13, colour, 0.5))
    return join(parts)
