"""Small mesh pieces that clothes, glasses and hair are assembled from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Where the neck lets go of the head: 1 above, 0 at the shoulders (heights in head units).
_NECK_LOW, _NECK_HIGH = -13.6, -7.0


@dataclass(frozen=True)
class Mesh:
    """Vertices with per-vertex linear attributes; `surface` is (uv_x, uv_y, shine, pattern)."""

    points: np.ndarray
    normals: np.ndarray
    colours: np.ndarray
    surface: np.ndarray
    triangles: np.ndarray


def head_weight(points: np.ndarray) -> np.ndarray:
    """How far [V] each point follows the head; the jaw in front is lifted out of the neck's range."""
    height = points[:, 1] + 0.45 * np.clip(points[:, 2] - 6.0, 0, None)
    t = np.clip((height - _NECK_LOW) / (_NECK_HIGH - _NECK_LOW), 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def grid_triangles(rows: int, columns: int) -> np.ndarray:
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    return np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])


def grid_normals(points: np.ndarray) -> np.ndarray:
    """Unit normals of a grid [rows, columns, 3], turned away from the body's axis."""
    across = np.gradient(points, axis=1)
    down = np.gradient(points, axis=0)
    normals = np.cross(down, across)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True) + 1e-9
    return normals


def sheet(points: np.ndarray, colour: np.ndarray, shine: float, pattern: float, uv: np.ndarray | None = None) -> Mesh:
    """A mesh of a grid [rows, columns, 3]; without `uv` the cloth coordinates are the arc lengths."""
    rows, columns = points.shape[:2]
    if uv is None:
        steps = np.linalg.norm(np.diff(points, axis=1), axis=-1)
        u = np.concatenate([np.zeros((rows, 1)), np.cumsum(steps, axis=1)], axis=1)
        steps = np.linalg.norm(np.diff(points, axis=0), axis=-1)
        v = np.concatenate([np.zeros((1, columns)), np.cumsum(steps, axis=0)], axis=0)
        uv = np.stack([u - u[:, columns // 2 : columns // 2 + 1], v], -1)
    count = rows * columns
    surface = np.concatenate([uv.reshape(count, 2), np.full((count, 1), shine), np.full((count, 1), pattern)], 1)
    return Mesh(
        points=points.reshape(count, 3).astype(np.float32),
        normals=grid_normals(points).reshape(count, 3).astype(np.float32),
        colours=np.broadcast_to(colour, (count, 3)).astype(np.float32),
        surface=surface.astype(np.float32),
        triangles=grid_triangles(rows, columns),
    )


def tube(path: np.ndarray, radius: float, colour: np.ndarray, shine: float, sides: int = 6) -> Mesh:
    """A round wire [n, 3] along a path."""
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True) + 1e-9
    first = np.cross(tangent, np.array([0.13, 0.2, 1.0]))
    first /= np.linalg.norm(first, axis=1, keepdims=True) + 1e-9
    second = np.cross(tangent, first)
    turn = np.linspace(0, 2 * np.pi, sides + 1)[None, :, None]
    normals = np.cos(turn) * first[:, None] + np.sin(turn) * second[:, None]
    mesh = sheet(path[:, None] + radius * normals, colour, shine, 0.0)
    return Mesh(mesh.points, normals.reshape(-1, 3).astype(np.float32), mesh.colours, mesh.surface, mesh.triangles)


def join(meshes: list[Mesh]) -> Mesh:
    offsets = np.cumsum([0] + [len(mesh.points) for mesh in meshes])
    return Mesh(
        points=np.concatenate([mesh.points for mesh in meshes]),
        normals=np.concatenate([mesh.normals for mesh in meshes]),
        colours=np.concatenate([mesh.colours for mesh in meshes]),
        surface=np.concatenate([mesh.surface for mesh in meshes]),
        triangles=np.concatenate([mesh.triangles + offset for mesh, offset in zip(meshes, offsets, strict=False)]),
    )
