"""Soft shadows that are computed once a person: how much of the sky and of the key light each vertex sees.

The neutral head with hair, glasses and clothes is drawn as depth from many directions; a vertex is visible from a
direction when nothing lies in front of it there. Head motion is small, so the shadows ride along with the surface.
"""

from __future__ import annotations

from typing import Any

import moderngl
import numpy as np

from .shaders import DEPTH_FRAGMENT, DEPTH_VERTEX

_RESOLUTION = 256
_SPAN = 26.0
_CENTRE = np.array([0.0, -2.0, 0.0])
# Where the camera may stand relative to the head: what none of these sees need not be drawn.
_VIEWS = np.array([[0, 0, 1], [0.48, 0.1, 1], [-0.48, 0.1, 1], [0, -0.3, 1], [0, 0.34, 1]], float)
_VIEWS /= np.linalg.norm(_VIEWS, axis=1, keepdims=True)


class LightBaker:
    def __init__(self, context: moderngl.Context) -> None:
        self._context = context
        self._program: Any = context.program(vertex_shader=DEPTH_VERTEX, fragment_shader=DEPTH_FRAGMENT)
        self._depth = context.depth_texture((_RESOLUTION, _RESOLUTION))
        self._target = context.framebuffer(depth_attachment=self._depth)

    def bake(self, solid: np.ndarray, triangles: np.ndarray, points: np.ndarray, normals: np.ndarray,
             key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[n, 2] ambient and key visibility in 0..1 of `points`, and [n] whether the camera can ever see them.

        `solid`, `triangles` cast the shadows.
        """
        buffer = self._context.buffer(solid.astype("f4").tobytes())
        index = self._context.buffer(triangles.astype("i4").tobytes())
        array = self._context.vertex_array(self._program, [(buffer, "3f", "in_position")], index)
        ambient = self._visibility(array, points, normals, _sphere(26), 0.25)
        direct = self._visibility(array, points, normals, _around(key, 8), -2.0)
        seen = self._visibility(array, points, normals, _VIEWS, -2.0, bias=1.4) > 0.0
        for item in (array, buffer, index):
            item.release()
        return np.stack([ambient, direct], 1).astype(np.float32), seen

    def _visibility(self, array: moderngl.VertexArray, points: np.ndarray, normals: np.ndarray, directions: np.ndarray,
                    least: float, bias: float = 0.55) -> np.ndarray:
        """Share of light; directions below a vertex's horizon (cosine under `least`) do not count against it."""
        seen, total = np.zeros(len(points)), np.full(len(points), 1e-6)
        for direction in directions:
            axes = _axes(direction)
            local = (points - _CENTRE) @ axes.T / _SPAN
            camera = np.eye(4)
            camera[:3, :3] = axes / _SPAN
            camera[2] *= -1
            camera[:3, 3] = camera[:3, :3] @ -_CENTRE
            self._program["u_camera"].write(camera.T.astype("f4").tobytes())
            self._target.use()
            self._target.clear(depth=1.0)
            self._context.enable_only(moderngl.DEPTH_TEST)
            array.render()
            depth = np.frombuffer(self._depth.read(), "f4").reshape(_RESOLUTION, _RESOLUTION)
            pixel = np.clip(((local[:, :2] * 0.5 + 0.5) * _RESOLUTION).astype(int), 0, _RESOLUTION - 1)
            front = (1 - 2 * depth[pixel[:, 1], pixel[:, 0]]) * _SPAN
            lit = np.clip(1.5 - (front - local[:, 2] * _SPAN) / bias, 0, 1)
            weight = np.clip(normals @ direction - least, 0, 1)
            seen += weight * lit
            total += weight
        return seen / total


def _axes(direction: np.ndarray) -> np.ndarray:
    right = np.cross([0.0, 1.0, 0.02], direction)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(direction, right), direction])


def _sphere(count: int) -> np.ndarray:
    """Directions over the upper and front part of the sphere, evenly spread."""
    i = np.arange(count * 2) + 0.5
    y = 1 - i / count
    turn = i * np.pi * (3 - np.sqrt(5))
    radius = np.sqrt(1 - y**2)
    points = np.stack([radius * np.cos(turn), y, radius * np.sin(turn)], 1)
    return points[np.argsort(-(points[:, 1] * 0.7 + points[:, 2]))[:count]]


def _around(key: np.ndarray, count: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    cone = key + rng.normal(0, 0.13, (count, 3))
    return cone / np.linalg.norm(cone, axis=1, keepdims=True)
