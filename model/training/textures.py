"""The painted skin of a presenter: one sRGB texture around the head, unrolled as a cylinder.

Masks depend only on the neutral template and its landmarks, so they are made once (`PaintSpace`) and blended per
person. u runs with the angle around the head (the back is clamped, hair covers it), v with the height.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, zoom

from .head import Head
from .people import Person

SIZE = 1024
AXIS_Z = 1.0
HALF_ANGLE = 2.2
TOP, BOTTOM = 15.0, -20.0


def unroll(points: np.ndarray) -> np.ndarray:
    """Template positions [..., 3] to texture coordinates [..., 2] in 0..1 (v = 0 is the top row)."""
    angle = np.arctan2(points[..., 0], points[..., 2] - AXIS_Z)
    u = 0.5 + np.clip(angle, -HALF_ANGLE, HALF_ANGLE) / (2 * HALF_ANGLE)
    return np.stack([u, (TOP - points[..., 1]) / (TOP - BOTTOM)], axis=-1)


def smooth(low: float, high: float, value: np.ndarray) -> np.ndarray:
    """GLSL smoothstep; low > high gives the falling one."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def hairline(angle: np.ndarray) -> np.ndarray:
    """Height of the hairline on the template at |angle| around the vertical axis through z = 0."""
    degrees = np.abs(np.degrees(angle))
    return np.interp(
        degrees,
        [0, 18, 32, 42, 50, 57, 62, 68, 75, 84, 95, 108, 120, 135, 180],
        [10.0, 10.1, 9.7, 8.8, 7.2, 5.0, 2.6, 2.2, 4.9, 6.2, 6.0, 4.2, 0.5, -2.5, -4.2],
    )


class PaintSpace:
    """Masks in 0..1, float32 [SIZE, SIZE], of the template."""

    def __init__(self, head: Head) -> None:
        self._landmarks = head.vertices[head.landmarks68]
        columns = (np.arange(SIZE) + 0.5) / SIZE
        self.angle = ((columns - 0.5) * 2 * HALF_ANGLE)[None, :].astype(np.float32)
        self.height = (TOP - columns * (TOP - BOTTOM))[:, None].astype(np.float32)
        mouth = unroll(self._landmarks[48:60])
        self.lips = gaussian_filter(self.polygon(mouth), 2.2)
        self.cheeks = self.blob((3.9, -0.2, 8.6), 2.4, 1.9)
        self.nose = self.spot((0.0, 0.3, 12.9), 1.3, 1.2)
        self.nostrils = self.blob((1.15, -0.7, 11.0), 0.5, 0.5)
        self.under_eye = self.blob((3.0, 2.2, 9.6), 1.5, 0.55)
        self.lids = self.blob((3.2, 4.3, 9.4), 1.7, 0.75)
        self.beard = self._beard_mask()
        beside_mouth = np.clip(self.blob((2.9, -3.6, 9.9), 0.55, 2.2) * 1.2, 0, 1)
        chin = np.clip(self.spot((0.0, -6.4, 10.6), 2.5, 1.7) * 1.5, 0, 1)
        self.goatee = np.maximum(np.maximum(chin, beside_mouth), self.beard * smooth(0.30, 0.22, np.abs(self.angle)))
        self.goatee = self.goatee * smooth(-8.6, -7.4, self.height)
        self.scalp = smooth(-0.9, 0.9, self.height - self._hairline_rows())
        rng = np.random.default_rng(5)
        self.fine = rng.normal(0, 1, (SIZE, SIZE)).astype(np.float32)
        self.grain = gaussian_filter(self.fine, 1.5) * 4
        octaves = [zoom(rng.normal(0, 1, (n, n)), SIZE / n, order=1) for n in (32, 64, 128)]
        self.mottle = (np.sum(octaves, axis=0) / 2).astype(np.float32)

    def polygon(self, uv: np.ndarray) -> np.ndarray:
        image = Image.new("L", (SIZE, SIZE))
        ImageDraw.Draw(image).polygon([(float(u) * SIZE, float(v) * SIZE) for u, v in uv], fill=255)
        return np.asarray(image, np.float32) / 255

    def spot(self, centre: tuple[float, float, float], width: float, height: float) -> np.ndarray:
        """A soft ellipse around a template point, sizes in head units."""
        u, v = unroll(np.array(centre))
        angle, y = (u - 0.5) * 2 * HALF_ANGLE, TOP - v * (TOP - BOTTOM)
        radius = np.hypot(centre[0], centre[2] - AXIS_Z)
        distance = ((self.angle - angle) * radius / width) ** 2 + ((self.height - y) / height) ** 2
        return np.exp(-distance).astype(np.float32)

    def blob(self, centre: tuple[float, float, float], width: float, height: float) -> np.ndarray:
        x, y, z = centre
        return np.maximum(self.spot((x, y, z), width, height), self.spot((-x, y, z), width, height))

    def _hairline_rows(self) -> np.ndarray:
        # The hairline is measured around z = 0, the texture around AXIS_Z: at the scalp's radius of 8.
        x, z = 8.0 * np.sin(self.angle), 8.0 * np.cos(self.angle) + AXIS_Z
        return hairline(np.arctan2(x, z))

    def _beard_mask(self) -> np.ndarray:
        """Jaw, chin, upper lip and a little of the neck, without the lips."""
        jaw = unroll(self._landmarks[0:17])
        rows = np.interp(self.angle[0], (jaw[:, 0] - 0.5) * 2 * HALF_ANGLE, TOP - jaw[:, 1] * (TOP - BOTTOM))
        side = smooth(0.30, 0.75, np.abs(self.angle[0]))
        upper = rows + 1.6 + 2.6 * side
        upper = np.where(np.abs(self.angle[0]) < 0.42, np.maximum(upper, -1.6 - 6.5 * self.angle[0] ** 2), upper)
        low = smooth(-10.5, -8.6, self.height) * smooth(1.5, 0.6, self.height)
        mask = smooth(0.7, -0.5, self.height - upper[None, :]) * low * smooth(1.55, 1.25, np.abs(self.angle))
        mouth = gaussian_filter(self.polygon(unroll(self._landmarks[48:60] * [1.06, 1, 1])), 4)
        return (mask * (1 - np.clip(1.25 * mouth, 0, 1))).astype(np.float32)

    def brow_strokes(self, weight: float, rng: np.random.Generator) -> np.ndarray:
        """Opacity of both brows drawn hair by hair along landmarks 17-26."""
        scale = 2
        image = Image.new("L", (SIZE * scale, SIZE * scale))
        draw = ImageDraw.Draw(image)
        for side in (-1, 1):
            line = self._landmarks[17:22] if side < 0 else self._landmarks[26:21:-1]
            for _ in range(int(220 + 240 * weight)):
                t = rng.uniform(0, 1)
                thickness = 0.42 * weight * np.interp(t, [0, 0.35, 0.8, 1], [0.35, 0.8, 1.0, 0.75])
                root = np.array([np.interp(t * 4, range(5), line[:, k]) for k in range(3)])
                root[1] += 0.05 + rng.uniform(-1, 1) * thickness
                lean = np.interp(t, [0, 0.6, 1], [-0.30, -0.15, 0.25]) * np.pi
                length = rng.uniform(0.4, 0.75) * np.interp(t, [0, 0.2, 1], [0.7, 1, 0.9])
                tip = root + length * np.array([side * np.cos(lean), -0.35 * np.sin(lean) * 1.6, 0.0])
                ends = unroll(np.stack([root, tip])) * SIZE * scale
                opacity, width = int(rng.uniform(120, 200)), int(rng.integers(2, 5))
                draw.line([tuple(ends[0]), tuple(ends[1])], fill=opacity, width=width)
        small = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BOX), np.float32) / 255
        return gaussian_filter(small, 1.3)


def paint_skin(space: PaintSpace, person: Person) -> np.ndarray:
    """The skin texture, uint8 [SIZE, SIZE, 4]: sRGB, and in alpha how oily (lips and nose shine more)."""
    rng = np.random.default_rng([person.seed, 11])
    base = np.array(person.skin, np.float32)
    pixels = np.broadcast_to(base, (SIZE, SIZE, 3)).copy()
    depth = 1 - float(base.mean())

    def tint(mask: np.ndarray, factors: tuple[float, float, float], amount: float) -> None:
        nonlocal pixels
        pixels *= 1 + (mask * amount)[..., None] * (np.array(factors, np.float32) - 1)

    tint(space.mottle, (1.0, 0.975, 0.975), 0.6)
    tint(space.cheeks, (1.0, 0.89, 0.88), 0.55 + 0.3 * person.lips)
    tint(space.nose, (1.0, 0.91, 0.90), 0.6)
    tint(space.nostrils, (0.82, 0.66, 0.63), 0.55)
    tint(space.under_eye, (0.88, 0.82, 0.85), 0.45 + 0.5 * person.age)
    tint(space.lids, (0.93, 0.86, 0.85), 0.6)
    if person.freckles:
        dots = np.clip(gaussian_filter(space.fine, 1.3) * 5 - 1.3, 0, 1) * (space.cheeks + space.nose)
        tint(np.clip(dots, 0, 1), (0.80, 0.68, 0.60), person.freckles)
    if person.age > 0.4:
        tint(np.clip(space.mottle - 0.6, 0, 1), (0.93, 0.88, 0.84), (person.age - 0.4) * 0.8)
    pixels *= 1 + 0.012 * space.fine[..., None] + 0.012 * space.grain[..., None]

    natural = base * np.array([0.93, 0.70 + 0.10 * depth, 0.70 + 0.10 * depth], np.float32)
    made_up = np.array([0.72, 0.33, 0.34], np.float32) * (0.55 + 0.55 * float(base.mean()))
    lips = natural * (1 - 0.65 * person.lips) + made_up * 0.65 * person.lips
    lip_texture = (1 + 0.04 * space.grain)[..., None]
    pixels += space.lips[..., None] * 0.9 * (lips * lip_texture - pixels)

    hair = np.array(person.hair_colour, np.float32)
    pixels += _facial_hair(space, person)[..., None] * (hair * 0.85 + base * 0.08 - pixels)
    brow = hair * 0.72 + np.array([0.02, 0.012, 0.008], np.float32)
    strokes = space.brow_strokes(person.brow_weight, rng) * (0.72 + 0.22 * person.brow_weight)
    pixels += strokes.clip(0, 0.9)[..., None] * (brow - pixels)
    pixels += _scalp(space, person)[..., None] * (hair * 0.8 - pixels)
    oil = 0.35 + 0.3 * space.nose + 0.65 * space.lips * (0.4 + 0.6 * person.lips) - 0.15 * space.cheeks
    return (np.dstack([pixels, oil]).clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _facial_hair(space: PaintSpace, person: Person) -> np.ndarray:
    speckle = np.clip(0.62 + 0.30 * space.grain + 0.10 * space.fine, 0, 1)
    if person.beard == "none":
        shadow = 0.0 if person.feminine else 0.08
        return space.beard * shadow * speckle
    if person.beard == "stubble":
        return space.beard * 0.30 * speckle
    mask = {"short": space.beard, "goatee": space.goatee}[person.beard]
    mask = mask * (1 - np.clip(space.lips * 1.4, 0, 1))
    full = np.clip(np.clip(mask * 1.3, 0, 1) * (0.55 + 0.5 * speckle), 0, 0.92)
    return full + 0.12 * space.beard * speckle * (1 - mask)


def _scalp(space: PaintSpace, person: Person) -> np.ndarray:
    """Hair colour on the scalp under (or instead of) the strands."""
    speckle = np.clip(0.8 + 0.25 * space.grain, 0, 1)
    strength = {"bald": 0.10, "buzz": 0.80}.get(person.hair_style, 0.85)
    return np.clip(space.scalp * speckle * strength, 0, 1)
