"""Shoulders and what a presenter wears: a lofted torso around the neck, cut open by necklines, with collars and lapels.

The torso is a surface over (theta, s): theta turns around the body (0 is the front), s runs from the neck down. Every
garment is that surface at some offset with an opening in front; trims, collars and lapels are strips along its edge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from .meshes import Mesh, join, sheet
from .people import Person

_AXIS_Z = -2.0
_S = np.array([0.0, 0.12, 0.26, 0.42, 0.58, 0.76, 1.0])
_FRONT = np.array([[6.2, -13.0], [6.1, -15.0], [7.0, -17.2], [8.2, -19.8], [9.6, -23], [10.6, -28], [11, -34]])
_SIDE = np.array([[6.7, -10.3], [8.7, -11.7], [12.2, -13.2], [16.4, -14.8], [20.0, -17.0], [22.4, -21.5], [23.6, -34]])
_BACK = np.array([[5.7, -9.6], [7.0, -11.3], [8.0, -13.5], [9.0, -17], [9.5, -21], [10, -27], [10, -34]])
_PATTERNS = {"plain": 0.0, "stripe": 1.0, "check": 2.0, "knit": 3.0, "rib": 4.0}
Opening = Callable[[np.ndarray], np.ndarray]


class Tailor:
    """Cuts garments for one bust (points and normals of the neck and chest that nothing may sink into)."""

    def __init__(self, person: Person, bust: np.ndarray, bust_normals: np.ndarray) -> None:
        self._person = person
        self._tree = cKDTree(bust)
        self._bust, self._normals = bust, bust_normals
        self._rng = np.random.default_rng([person.seed, 23])
        self._width = 0.96 if person.feminine else 1.0
        self._folds = gaussian_filter(self._rng.normal(0, 1, (64, 96)), (5, 2), mode="wrap") * 11

    def surface(self, theta: np.ndarray, s: np.ndarray, offset: float | np.ndarray) -> np.ndarray:
        """Points [..., 3] of the torso, lifted by `offset` and out of the bust."""
        sine, cosine = np.sin(theta), np.cos(theta)
        along = np.where(cosine > 0, np.interp(s, _S, _FRONT[:, 0]), np.interp(s, _S, _BACK[:, 0]))
        side = np.interp(s, _S, _SIDE[:, 0]) * (1 + (self._width - 1) * np.clip(s * 3, 0, 1))
        power = 2.3
        radius = ((np.abs(sine) / side) ** power + (np.abs(cosine) / along) ** power) ** (-1 / power)
        height = np.where(cosine > 0, np.interp(s, _S, _FRONT[:, 1]), np.interp(s, _S, _BACK[:, 1]))
        share = sine**2
        height = height * (1 - share) + np.interp(s, _S, _SIDE[:, 1]) * share
        points = np.stack([radius * sine, height, _AXIS_Z + radius * cosine], -1)
        return self._lift(points, np.broadcast_to(offset, theta.shape))

    def _lift(self, points: np.ndarray, offset: np.ndarray) -> np.ndarray:
        outward = points - np.array([0, -16.0, _AXIS_Z])
        outward = outward * [1, 0.6, 1]
        outward /= np.linalg.norm(outward, axis=-1, keepdims=True)
        points = points + outward * offset[..., None]
        _, nearest = self._tree.query(points)
        normals = self._normals[nearest]
        gap = ((points - self._bust[nearest]) * normals).sum(-1)
        close = np.linalg.norm(points - self._bust[nearest], axis=-1) < 3.0
        push = np.where(close, np.clip(offset - gap, 0, 2.5), 0)
        return points + normals * push[..., None]

    def panel(self, opening: Opening, offset: float, folds: float, colour: np.ndarray, pattern: str,
              start: float = 0.0) -> Mesh:
        """The garment's body: open in front by `opening(height)` half-widths."""
        rows, columns = 56, 120
        s = np.linspace(start, 1.0, rows)[:, None]
        edge = self._edge_angle(opening, s[:, 0])
        share = np.linspace(0, 1, columns)[None, :]
        theta = edge[:, None] + share * (2 * np.pi - 2 * edge[:, None])
        s = np.broadcast_to(s, theta.shape)
        points = self.surface(theta, s, offset)
        points[:, 1:-1] = gaussian_filter(points, (1.2, 1.2, 0), mode="nearest")[:, 1:-1]
        wrinkle = self._folds[(s * 63).astype(int), (theta / (2 * np.pi) * 95).astype(int)]
        wrinkle = gaussian_filter(wrinkle, 1.0) * np.clip((s - 0.25) * 4, 0, 1) * folds
        mesh = sheet(points, colour, 0.0, 0.0)
        points = points + mesh.normals.reshape(points.shape) * wrinkle[..., None]
        return sheet(points, colour, 0.04, _PATTERNS[pattern])

    def _edge_angle(self, opening: Opening, s: np.ndarray) -> np.ndarray:
        height = np.interp(s, _S, _FRONT[:, 1])
        radius = np.interp(s, _S, (_SIDE[:, 0] + _FRONT[:, 0]) / 2)
        return np.arcsin(np.clip(opening(height) / radius, 0, 0.99))

    def strip(self, theta: np.ndarray, s: np.ndarray, width: np.ndarray, offset: float, bulge: float,
              colour: np.ndarray, pattern: str) -> Mesh:
        """A band from the line (theta, s) outwards by `width` (radians), rounded by `bulge`."""
        k = np.linspace(0, 1, 6)
        profile = np.sqrt(np.clip(1 - (2 * k - 1) ** 2, 0.02, 1)) * bulge
        points = np.stack([self.surface(theta + width * a, s, offset + b) for a, b in zip(k, profile, strict=True)], 1)
        # Darker rims: the seams that make a lapel or a hem readable at portrait size.
        rim = np.array([0.84, 1, 1, 1, 0.96, 0.70])[None, :, None]
        shades = np.broadcast_to(rim * colour, points.shape).reshape(-1, 3)
        return replace(sheet(points, colour, 0.05, _PATTERNS[pattern]), colours=shades.astype(np.float32))

    def edge_strips(self, opening: Opening, width: Opening, offset: float, bulge: float, colour: np.ndarray,
                    pattern: str, end: float) -> list[Mesh]:
        """Bands along both sides of an opening: hems and lapels. `width` maps height to units."""
        s = np.linspace(0, end, 40)
        height = np.interp(s, _S, _FRONT[:, 1])
        radius = np.interp(s, _S, _FRONT[:, 0])
        edge, span = self._edge_angle(opening, s), width(height) / radius
        left = self.strip(edge, s, span, offset, bulge, colour, pattern)
        right = self.strip(-edge, s, -span, offset, bulge, colour, pattern)
        return [left, _flip(right)]

    def neckband(self, offset: float, height: float, colour: np.ndarray, pattern: str, s: float = 0.0) -> Mesh:
        """A closed ring standing around the neck: crew collar (low) or turtleneck (high)."""
        theta = np.linspace(0, 2 * np.pi, 96)
        rows = []
        base = self.surface(theta, np.full_like(theta, s), offset)
        for k in np.linspace(0, 1, 9):
            ring = base.copy()
            ring[:, 1] += height * (1 - k) * (1 + 0.25 * (1 - np.cos(theta)) / 2)
            ring[:, [0, 2]] -= (ring[:, [0, 2]] - [0, _AXIS_Z]) * 0.035 * height * (1 - k)
            rows.append(self._lift(ring, np.full(len(theta), offset * 0.5 + 0.32 * np.sin(np.pi * (0.15 + 0.85 * k)))))
        return sheet(np.stack(rows), colour, 0.04, _PATTERNS[pattern])

    def shirt_collar(self, offset: float, gap: float, colour: np.ndarray, pattern: str) -> list[Mesh]:
        """A stand around the neck that folds outwards and ends in two points."""
        theta = np.linspace(gap, 2 * np.pi - gap, 110)
        base = self.surface(theta, np.zeros_like(theta), offset)
        front = np.exp(-((np.minimum(theta, 2 * np.pi - theta) - gap) / 0.5) ** 2)
        radial = np.stack([np.sin(theta), np.zeros_like(theta), np.cos(theta)], -1)
        rise = 1.7 - 0.9 * front
        fall = 2.3 + 2.1 * front
        rows = []
        for out, up in ((0.0, -0.3), (0.02, 0.4), (0.04, 0.8), (0.16, 1.0)):
            rows.append(base + radial * out + np.array([0, 1.0, 0]) * (rise * up)[:, None])
        top = rows[-1]
        spread = np.sign(np.pi - theta) * front * 1.0
        for k in np.linspace(0.06, 1, 8):
            row = top + radial * (0.35 + (0.75 + 0.5 * front[:, None]) * k)
            row = row + np.stack([spread * k, -fall * k + 0.12 * np.sin(np.pi * k), 0 * fall], -1)
            rows.append(row)
        lifted = [row if i < 4 else self._lift(row, np.full(len(row), offset + 0.3)) for i, row in enumerate(rows)]
        return [sheet(np.stack(lifted), colour, 0.05, _PATTERNS[pattern])]

    def placket(self, offset: float, colour: np.ndarray, start: float) -> list[Mesh]:
        """The button band of a shirt."""
        s = np.linspace(start, 0.95, 40)
        width = 0.75 / np.interp(s, _S, _FRONT[:, 0])
        band = self.strip(-width, s, 2 * width, offset, 0.10, colour, "plain")
        buttons = []
        for at in (0.10, 0.30, 0.48):
            centre = self.surface(np.zeros(1), np.full(1, at), offset + 0.25)[0]
            turn = np.linspace(0, 2 * np.pi, 10)
            ring = np.stack([np.cos(turn), np.sin(turn) * 0.9, 0.3 * np.sin(turn)], -1)
            disc = np.stack([centre + 0.01 * ring, centre + 0.22 * ring])
            buttons.append(_flip(sheet(disc, colour * 0.75, 0.3, 0.0)))
        return [band, *buttons]


def _flip(mesh: Mesh) -> Mesh:
    return Mesh(mesh.points, -mesh.normals, mesh.colours, mesh.surface, mesh.triangles[:, ::-1])


def _closed(height: np.ndarray) -> np.ndarray:
    return np.zeros_like(height)


def _vee(top: float, bottom: float, half: float) -> Opening:
    def opening(height: np.ndarray) -> np.ndarray:
        return half * np.clip((height - bottom) / (top - bottom), 0, 1) ** 0.85
    return opening


def _lapel(height: np.ndarray) -> np.ndarray:
    return np.interp(height, [-27, -25, -18.2, -17.6, -17.0, -13], [0.1, 0.8, 3.5, 2.2, 2.5, 1.7])


def dress(person: Person, bust: np.ndarray, bust_normals: np.ndarray) -> Mesh:
    """All cloth of a person as one mesh; `bust` [n, 3] are the neck and chest vertices with their normals."""
    tailor = Tailor(person, bust, bust_normals)
    cloth, under = np.array(person.cloth), np.array(person.under_cloth)
    shirt_pattern = person.pattern if person.garment in ("shirt", "blazer") else "plain"
    if person.garment == "shirt":
        parts = [tailor.panel(_closed, 0.35, 0.30, cloth, shirt_pattern), *tailor.placket(0.4, cloth, 0.0),
                 *tailor.shirt_collar(0.35, 0.16, cloth, "plain")]
    elif person.garment == "blazer":
        parts = _blazer(tailor, person, cloth, under)
    elif person.garment == "blouse":
        opening = _vee(-12.8, -18.6, 4.6)
        parts = [tailor.panel(opening, 0.35, 0.34, cloth, "plain"),
                 *tailor.edge_strips(opening, lambda y: np.full_like(y, 0.7), 0.35, 0.22, cloth * 0.97, "plain", 0.34)]
    elif person.garment == "turtleneck":
        parts = [tailor.panel(_closed, 0.45, 0.26, cloth, "knit"), tailor.neckband(0.5, 3.2, cloth, "rib", 0.03)]
    else:
        pattern = "knit" if person.garment == "sweater" else "plain"
        parts = [tailor.panel(_closed, 0.4, 0.28, cloth, pattern, start=0.02),
                 tailor.neckband(0.42, 0.8, cloth * 0.93, "rib", 0.04)]
    return join(parts)


def _blazer(tailor: Tailor, person: Person, cloth: np.ndarray, under: np.ndarray) -> list[Mesh]:
    opening = _vee(-12.8, -27.0, 5.4)
    parts = [tailor.panel(opening, 0.95, 0.18, cloth, "plain", start=0.02),
             *tailor.edge_strips(opening, _lapel, 1.0, 0.28, np.clip(cloth * 1.10 + 0.01, 0, 1), "plain", 0.72)]
    if person.feminine:
        inner = _vee(-12.8, -18.2, 3.6)
        parts += [tailor.panel(inner, 0.3, 0.15, under, "plain"),
                  *tailor.edge_strips(inner, lambda y: np.full_like(y, 0.5), 0.3, 0.15, under, "plain", 0.32)]
    else:
        parts += [tailor.panel(_closed, 0.3, 0.12, under, "plain"), *tailor.placket(0.35, under, 0.0),
                  *tailor.shirt_collar(0.3, 0.16, under, "plain")]
    return parts
