"""Where the camera and the lights of a presenter stand: one portrait set, varied a little per person."""

from __future__ import annotations

from typing import Any

import numpy as np

from .people import FramePose, Person

FACE_HEIGHT = 17.0
_PIVOT = np.array([0.0, -7.0, -1.0])  # of the head, as in the shaders

_DISTANCE = 105.0
_UNITS_HIGH = 40.5
_AIM = np.array([0.0, -0.35, 4.0])


def key_direction(person: Person) -> np.ndarray:
    direction = np.array([0.75 * person.light.side, person.light.height, 1.0])
    return direction / np.linalg.norm(direction)


def camera(person: Person) -> tuple[np.ndarray, np.ndarray]:
    """Projection x view [4, 4] (column vectors) and the camera's place."""
    view = person.camera
    target = _AIM + [view.shift_x, view.shift_y, 0]
    eye = target + [0, 0, _DISTANCE]
    near, far = _DISTANCE - 40, _DISTANCE + 60
    focal = 2 * _DISTANCE / (_UNITS_HIGH / view.zoom)
    projection = np.array([[focal, 0, 0, 0], [0, focal, 0, 0],
                           [0, 0, -(far + near) / (far - near), -2 * far * near / (far - near)], [0, 0, -1, 0]])
    look = np.eye(4)
    look[:3, 3] = -eye
    return projection @ look, eye


def projected(points: np.ndarray, weight: float, pose: FramePose, person: Person) -> np.ndarray:
    """Where in the picture points [n, 3] of a head at rest are seen at `pose`, [n, 2] in [-1, 1], x right and y down, when they follow the
    head by `weight`. What the vertex shaders do."""
    (cx, cy, cz), (sx, sy, sz) = (f(weight * np.array((pose.yaw, pose.pitch, pose.roll))) for f in (np.cos, np.sin))
    yaw = np.array([[cx, 0, sx], [0, 1, 0], [-sx, 0, cx]])
    pitch = np.array([[1, 0, 0], [0, cy, sy], [0, -sy, cy]])
    roll = np.array([[cz, sz, 0], [-sz, cz, 0], [0, 0, 1]])
    scale = 1.0 + (pose.scale - 1.0) * weight
    turned = (points - _PIVOT) * scale @ (roll @ yaw @ pitch).T + _PIVOT + FACE_HEIGHT * weight * np.array([pose.x, pose.y, 0.0])
    x, y, _, w = camera(person)[0] @ np.concatenate((turned, np.ones((len(turned), 1))), axis=1).T
    return np.stack((x / w, -y / w), axis=-1)


def set_up(program: Any, person: Person) -> None:
    """Writes camera and light uniforms of a material's program; what its shader does not use is skipped."""
    light, warm = person.light, np.array([1.0, 0.0, -1.0]) * person.light.warmth
    matrix, eye = camera(person)
    values = {
        "u_eye": eye,
        "u_key_direction": key_direction(person),
        "u_key": (1 + warm) * light.key,
        "u_fill": (1 - 0.6 * warm) * light.fill,
        "u_rim": (1 - warm) * light.rim * 1.6,
        "u_glint": np.array([0.17 * light.side, 0.17]),
    }
    program["u_camera"].write(matrix.T.astype("f4").tobytes())
    for name, value in values.items():
        if name in program:
            program[name].value = tuple(float(number) for number in value)
