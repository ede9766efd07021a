"""Hair as a few thousand ribbons ("cards") grown from the scalp along a style's flow, kept outside head and clothes.

Every card carries a strand pattern that the fragment shader cuts out, a tangent for the highlight and the normal of
the hair's volume. Growth is deterministic in the person's seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from .head import SKIN, Head
from .people import Person
from .textures import hairline, smooth


@dataclass(frozen=True)
class Style:
    """Lengths in head units at the crown and at the sides; `part` and `gather` pick the flow."""

    count: int
    length: float
    side_length: float
    flow: str
    lift: float
    gravity: float
    layer: float
    width: float = 0.75
    wave: float = 0.0
    curl: float = 0.0
    steps: int = 9


STYLES: dict[str, Style] = {
    "buzz": Style(2600, 0.55, 0.4, "forward", 0.5, 0.0, 0.12, width=0.5, steps=3),
    "short": Style(2200, 3.0, 1.1, "forward", 0.55, 0.10, 0.5, width=0.6, steps=6),
    "side": Style(2200, 4.8, 1.2, "side", 0.45, 0.15, 0.8, width=0.65, steps=8),
    "slick": Style(2200, 5.5, 2.4, "back", 0.30, 0.05, 0.6, width=0.65, steps=8),
    "curly_short": Style(2000, 3.2, 1.3, "out", 0.9, 0.05, 0.4, width=0.46, curl=0.55, steps=8),
    "pixie": Style(2200, 5.0, 3.0, "side", 0.35, 0.30, 0.8, width=0.65, steps=8),
    "bob": Style(1900, 16.0, 12.5, "curtain", 0.25, 0.55, 1.5, width=0.95, steps=11),
    "long": Style(1700, 27.0, 23.0, "curtain", 0.25, 0.55, 1.5, width=1.05, steps=13),
    "wavy": Style(1700, 24.0, 20.0, "curtain", 0.35, 0.5, 1.9, width=1.05, wave=0.55, steps=15),
    "bun": Style(2000, 19.0, 21.0, "gather", 0.05, 0.0, 0.45, width=0.8, steps=14),
    "curly": Style(1900, 6.6, 8.0, "out", 0.7, 0.28, 0.9, width=0.58, curl=0.8, steps=11),
}
_BUN = np.array([0.0, 15.9, -4.0])


@dataclass(frozen=True)
class Cards:
    """Ribbon vertices: `strand` is (across 0..1, along 0..1, card number, shade)."""

    points: np.ndarray
    normals: np.ndarray
    tangents: np.ndarray
    strand: np.ndarray
    triangles: np.ndarray


def grow(head: Head, person: Person, neutral: np.ndarray, normals: np.ndarray, body: np.ndarray,
         body_normals: np.ndarray) -> Cards | None:
    """The cards of a person; `body` are points hair must not enter besides the head. None for bald heads."""
    if person.hair_style not in STYLES:
        return None
    style = STYLES[person.hair_style]
    rng = np.random.default_rng([person.seed, 37])
    roots, root_normals, template = _roots(head, neutral, normals, style.count, rng)
    solid = np.concatenate([neutral[SKIN][::2], body])
    field = _Solid(solid, np.concatenate([normals[SKIN][::2], body_normals]))
    crown = smooth(6.0, 10.0, template[:, 1]) if style.flow != "curtain" else smooth(2.0, 12.0, template[:, 1])
    length = (style.side_length + (style.length - style.side_length) * crown) * rng.uniform(0.78, 1.05, len(roots))
    if style.flow == "forward":
        length *= 1 - 0.45 * smooth(3.0, 8.0, template[:, 2])
    paths = _paths(style, person, roots, root_normals, template, length, field, rng)
    if style.flow == "gather":
        paths = np.concatenate([paths, _bun_paths(rng, style.steps)])
    return _ribbons(paths, field, style, rng)


class _Solid:
    def __init__(self, points: np.ndarray, normals: np.ndarray) -> None:
        self._tree = cKDTree(points)
        self._points, self._normals = points, normals

    def push_out(self, points: np.ndarray, clearance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points moved to at least `clearance` outside, and the outward normals."""
        _, nearest = self._tree.query(points)
        normals = self._normals[nearest]
        gap = ((points - self._points[nearest]) * normals).sum(-1)
        return points + normals * np.clip(clearance - gap, 0, 3.0)[:, None], normals


def _roots(head: Head, neutral: np.ndarray, normals: np.ndarray, count: int,
           rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    triangles = head.groups["skin"]
    centre = head.vertices[triangles].mean(1)
    angle = np.arctan2(centre[:, 0], centre[:, 2])
    radius = np.hypot(centre[:, 0], centre[:, 2])
    ear = (radius > 7.6) & (np.abs(centre[:, 0]) > 6.8) & (centre[:, 1] < 6.0) & (np.abs(centre[:, 2]) < 4.5)
    usable = triangles[(centre[:, 1] > hairline(angle)) & ~ear & (radius > 0.1)]
    a, b, c = (neutral[usable[:, i]] for i in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    pick = usable[rng.choice(len(usable), count, p=area / area.sum())]
    share = rng.dirichlet((1, 1, 1), count)[..., None]
    result = [(array[pick] * share).sum(1) for array in (neutral, normals, head.vertices)]
    result[1] /= np.linalg.norm(result[1], axis=1, keepdims=True)
    return tuple(result)


def _flow(style: Style, person: Person, p: np.ndarray) -> np.ndarray:
    """Unit-ish combing direction [n, 3] at template-like places."""
    x, y, z = p[:, 0], p[:, 1], p[:, 2]
    top = smooth(5.5, 9.5, y)
    zero = np.zeros_like(x)
    if style.flow == "forward":
        sides = 1 - top
        across = 0.45 * person.hair_part * top + 0.15 * np.sign(x) * sides
        return np.stack([across, 0.35 * top - 1.1 * sides, 0.9 * top - 0.4 * sides], 1)
    if style.flow == "back":
        return np.stack([0.18 * np.sign(x) + zero, 0.35 * top - 0.5 * (1 - top), -1.0 + zero], 1)
    if style.flow == "out":
        return np.stack([0.1 * x, 0.05 * y, 0.1 * z], 1)
    if style.flow == "gather":
        return (_BUN - [0, 1.5, 0]) - p
    part = person.hair_part * 3.4 if style.flow == "side" else person.hair_part * 2.2
    away = np.tanh((x - part) * 1.2)
    if style.flow == "side":
        back = -0.35 + 0.35 * top * smooth(2, 7, z)
        return np.stack([away * (0.35 + 0.65 * top), 0.30 * top - 0.9 * (1 - top), back], 1)
    # In front of the ears hair gathers beside the neck; behind them it hangs as a curtain that closes the gaps.
    beside_neck = (np.sign(x) * 7.4 - x) * smooth(2.0, -3.0, y)
    curtain = (np.sign(x) * 9.2 - x) * smooth(3.5, 6.5, np.abs(x)) * smooth(9.0, 3.0, y)
    inward = 0.22 * np.where(z > -2.0, beside_neck, curtain)
    down = -0.4 - 0.6 * smooth(8.0, 3.0, y)
    return np.stack([away * smooth(3.0, 9.0, y) + inward, down, -0.45 * smooth(-2, 6, z) * top], 1)


def _paths(style: Style, person: Person, roots: np.ndarray, root_normals: np.ndarray, template: np.ndarray,
           length: np.ndarray, field: _Solid, rng: np.random.Generator) -> np.ndarray:
    """Centre lines [n, steps, 3]."""
    count, step = len(roots), (length / (style.steps - 1))[:, None]
    clump = np.floor(template * 0.9).sum(1).astype(int) % 61
    noise = rng.normal(0, 0.16, (61, 3))[clump] + rng.normal(0, 0.07, (count, 3))
    layer = style.layer * rng.uniform(0.05, 1, count)
    point, outward = roots - 0.1 * root_normals, root_normals
    flow = _flow(style, person, point)
    flow /= np.linalg.norm(flow, axis=1, keepdims=True) + 1e-6
    direction = flow * (1 - style.lift) + outward * style.lift + noise
    path = [point]
    phase = rng.uniform(0, 2 * np.pi, count) if style.curl else (clump * 0.7 + rng.normal(0, 0.3, count))
    for i in range(1, style.steps):
        along = i / (style.steps - 1)
        flow = _flow(style, person, point)
        flow -= (flow * outward).sum(1, keepdims=True) * outward * (0.0 if style.flow == "out" else 0.9)
        flow /= np.linalg.norm(flow, axis=1, keepdims=True) + 1e-6
        pull = 0.0 if style.flow == "out" else 0.5 * (1 - style.gravity * along)
        direction = direction + flow * pull + np.array([0, -style.gravity, 0]) * (0.35 + along)
        direction /= np.linalg.norm(direction, axis=1, keepdims=True) + 1e-6
        if style.flow == "gather":
            # Strands end where the bun begins instead of overshooting.
            step = np.minimum(step, 0.6 * np.clip(np.linalg.norm(_BUN - point, axis=1, keepdims=True) - 1.6, 0.02, None))
        point = point + direction * step
        if style.curl:
            turn = phase + i * 1.9
            point = point + style.curl * 0.55 * np.stack([np.cos(turn), np.sin(turn), np.cos(turn + 1.3)], 1)
        point, outward = field.push_out(point, layer * np.sin(np.pi * min(0.2 + along, 0.5)) + 0.1)
        if style.flow == "curtain":
            point = _open_face(point, layer)
        path.append(point)
    paths = np.stack(path, 1)
    if style.wave:
        t = np.linspace(0, 1, style.steps)[None, :]
        swing = style.wave * np.sin(phase[:, None] + t * 16) * t**0.7
        paths[:, :, 0] += swing * np.sign(paths[:, :, 0])
        paths[:, :, 2] += 0.5 * style.wave * np.cos(phase[:, None] + t * 16) * t
    return paths


def _open_face(points: np.ndarray, layer: np.ndarray) -> np.ndarray:
    """Curtain hair stays beside the face: below the forehead it is moved out to the temples."""
    x, y, z = points.T
    limit = np.interp(y, [-30, -14, -8, 0, 6, 9.2, 10.5], [5.0, 5.6, 6.6, 7.0, 6.6, 4.6, 0.0]) + 0.35 * layer
    front = smooth(-1.0, 2.5, z)
    wanted = np.maximum(np.abs(x), limit)
    moved = np.where(x < 0, -1.0, 1.0) * (np.abs(x) + (wanted - np.abs(x)) * front)
    depth = np.where(y < 6, np.minimum(z, 5.5 + 0 * z), z)
    return np.stack([moved, y, depth], 1)


def _bun_paths(rng: np.random.Generator, steps: int) -> np.ndarray:
    """Strands wound around a ball on top of the head."""
    count = 420
    axis = rng.normal(0, 0.35, (count, 3)) + [0.0, 1.0, 0.25]
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    start = np.cross(axis, rng.normal(0, 1, (count, 3)))
    start /= np.linalg.norm(start, axis=1, keepdims=True)
    side = np.cross(axis, start)
    turn = np.linspace(0, rng.uniform(1.5, 2.6), steps)[None, :, None]
    lift = rng.uniform(-0.85, 0.85, count)[:, None, None]
    radius = 2.7 * rng.uniform(0.86, 1.0, count)[:, None, None]
    ring = np.cos(turn) * start[:, None] + np.sin(turn) * side[:, None]
    return _BUN + radius * (ring * np.sqrt(1 - lift**2) + axis[:, None] * lift)


def _ribbons(paths: np.ndarray, field: _Solid, style: Style, rng: np.random.Generator) -> Cards:
    count, steps = paths.shape[:2]
    tangent = np.gradient(paths, axis=1)
    tangent /= np.linalg.norm(tangent, axis=-1, keepdims=True) + 1e-9
    _, nearest = field.push_out(paths.reshape(-1, 3), np.zeros(count * steps))
    radial = paths - np.array([0, 3.0, -0.5])
    radial[..., 1] = np.maximum(radial[..., 1], -2.0)
    radial /= np.linalg.norm(radial, axis=-1, keepdims=True) + 1e-9
    normal = 0.35 * nearest.reshape(paths.shape) + radial
    normal -= (normal * tangent).sum(-1, keepdims=True) * tangent * 0.8
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-9
    across = np.cross(tangent, normal)
    twist = rng.normal(0, 0.35, (count, 1, 1))
    across = across + normal * twist
    t = np.linspace(0, 1, steps)
    taper = style.width * np.sqrt(np.clip(1.05 - t**3, 0.15, 1)) * rng.uniform(0.7, 1.2, (count, 1))
    if style.flow == "curtain":
        taper = taper * (1.0 + 2.0 * smooth(0.0, -4.0, paths[..., 2]))  # no strands are seen there, only gaps between them
    half = 0.5 * across * taper[..., None]
    points = np.stack([paths - half, paths + half], 2)
    strand = np.empty((count, steps, 2, 4))
    strand[..., 0] = [0.0, 1.0]
    strand[..., 1] = t[None, :, None]
    strand[..., 2] = (np.arange(count) % 512)[:, None, None]
    strand[..., 3] = rng.normal(0, 1, (count, 1, 1))
    ladder = np.arange(count * steps * 2).reshape(count, steps, 2)
    a, b, c, d = ladder[:, :-1, 0], ladder[:, :-1, 1], ladder[:, 1:, 0], ladder[:, 1:, 1]
    triangles = np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])
    double = [np.repeat(array[:, :, None], 2, axis=2).reshape(-1, 3).astype(np.float32) for array in (normal, tangent)]
    flat = points.reshape(-1, 3).astype(np.float32)
    return Cards(flat, double[0], double[1], strand.reshape(-1, 4).astype(np.float32), triangles)
