"""Rooms behind a presenter: soft, muted pictures that never compete with the face."""

from __future__ import annotations

import colorsys

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from .people import Person

SIZE = 320


def paint(person: Person) -> np.ndarray:
    """The backdrop of a person, uint8 [SIZE, SIZE, 3] sRGB."""
    rng = np.random.default_rng([person.seed, 53])
    makers = {
        "gradient": _gradient, "wall": _wall, "office": _office, "bokeh": _bokeh, "shelf": _shelf, "window": _window
    }  # fmt: skip
    picture = makers[person.backdrop](person.backdrop_hue, rng)
    picture = picture * _falloff(person.light.side)[..., None]
    # A little noise keeps eight-bit gradients from banding.
    picture = picture + rng.normal(0, 0.006, (SIZE, SIZE, 1))
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def _tone(hue: float, saturation: float, value: float) -> np.ndarray:
    # Hues are kept to warm greys, beiges, blues and greens.
    hue = float(np.interp(hue, [0, 0.35, 0.6, 1.0], [0.06, 0.13, 0.50, 0.64]))
    return np.array(colorsys.hsv_to_rgb(hue, saturation, value))


def _falloff(side: float) -> np.ndarray:
    y, x = np.mgrid[0:1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    return 1.03 + 0.09 * x * side - 0.16 * (y - 0.3) ** 2 - 0.10 * x**2


def _gradient(hue: float, rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    glow = np.exp(-(x**2 + (y + 0.1) ** 2) / 0.9)[..., None]
    value = rng.uniform(0.42, 0.78)
    return _tone(hue, 0.24, value * 0.72) * (1 - glow) + _tone(hue, 0.15, min(value * 1.12, 0.92)) * glow


def _wall(hue: float, rng: np.random.Generator) -> np.ndarray:
    base = np.broadcast_to(_tone(hue, 0.14, rng.uniform(0.62, 0.84)), (SIZE, SIZE, 3)).copy()
    plaster = gaussian_filter(rng.normal(0, 1, (SIZE, SIZE)), 5) * 0.10
    base *= 1 + plaster[..., None] * 0.5
    y, x = np.mgrid[0:1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    beam = 1 / (1 + np.exp(-(x * rng.choice([-1, 1]) + 0.5 * y - 0.2) * 4))
    return base * (0.84 + 0.18 * beam[..., None])


def _canvas(colour: np.ndarray) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (SIZE, SIZE), _rgb(colour))
    return image, ImageDraw.Draw(image)


def _rgb(colour: np.ndarray) -> tuple[int, int, int]:
    red, green, blue = (int(255 * value) for value in np.clip(colour, 0, 1))
    return red, green, blue


def _blur(image: Image.Image, sigma: float) -> np.ndarray:
    array = (np.asarray(image, np.float32) / 255) ** 2.2
    return np.clip(gaussian_filter(array, (sigma, sigma, 0), mode="nearest"), 0, None) ** (1 / 2.2)


def _office(hue: float, rng: np.random.Generator) -> np.ndarray:
    image, draw = _canvas(_tone(hue, 0.10, rng.uniform(0.68, 0.80)))
    horizon = int(SIZE * rng.uniform(0.62, 0.75))
    draw.rectangle([0, horizon, SIZE, SIZE], fill=_rgb(_tone(0.1, 0.25, 0.45)))
    x = -int(rng.integers(0, 60))
    while x < SIZE:
        width = int(rng.integers(40, 95))
        if rng.random() < 0.6:
            draw.rectangle([x, 25, x + width, horizon - 20], fill=_rgb(_tone(0.9, 0.09, rng.uniform(0.82, 0.97))))
            draw.rectangle([x + width // 2, 25, x + width // 2 + 4, horizon - 20], fill=_rgb(_tone(hue, 0.1, 0.55)))
        else:
            draw.rectangle([x, 0, x + width, horizon], fill=_rgb(_tone(hue, 0.18, rng.uniform(0.45, 0.65))))
        x += width + int(rng.integers(6, 18))
    for _ in range(3):
        cx, cy = int(rng.integers(0, SIZE)), horizon - int(rng.integers(5, 40))
        leaves = np.array([0.28, 0.40, 0.28]) * rng.uniform(0.7, 1.2)
        draw.ellipse([cx - 22, cy - 35, cx + 22, cy + 30], fill=_rgb(leaves))
    return _blur(image, 9.0)


def _bokeh(hue: float, rng: np.random.Generator) -> np.ndarray:
    picture = _gradient(hue, rng) * 0.72
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    for _ in range(26):
        cx, cy, radius = rng.uniform(0, SIZE), rng.uniform(0, SIZE * 0.8), rng.uniform(9, 24)
        disc = np.clip(radius - np.hypot(x - cx, y - cy), 0, 1.5) / 1.5
        warm = _tone(rng.uniform(0, 0.4) if rng.random() < 0.7 else hue, 0.28, 1.0)
        picture = picture + (disc * rng.uniform(0.04, 0.17))[..., None] * warm
    return gaussian_filter(picture, (2.0, 2.0, 0), mode="nearest")


def _shelf(hue: float, rng: np.random.Generator) -> np.ndarray:
    wood = _tone(0.05, 0.32, rng.uniform(0.38, 0.62))
    image, draw = _canvas(wood * 0.62)
    pitch = int(rng.integers(62, 80))
    for top in range(-20, SIZE, pitch):
        x = 0
        while x < SIZE:
            width, height = int(rng.integers(6, 15)), int(pitch * rng.uniform(0.6, 0.85))
            if rng.random() < 0.88:
                colour = _tone(rng.random(), rng.uniform(0.1, 0.42), rng.uniform(0.35, 0.82))
                draw.rectangle([x, top + pitch - height, x + width - 1, top + pitch], fill=_rgb(colour))
                x += width
            else:
                x += int(rng.integers(14, 34))
        draw.rectangle([0, top + pitch - 3, SIZE, top + pitch + 3], fill=_rgb(wood))
    return _blur(image, 6.5) * 0.92


def _window(hue: float, rng: np.random.Generator) -> np.ndarray:
    wall = _tone(hue, 0.13, rng.uniform(0.60, 0.76))
    image, draw = _canvas(wall)
    left = int(rng.choice([-40, SIZE * 0.62]))
    draw.rectangle([left, -10, left + 170, int(SIZE * 0.72)], fill=_rgb(np.array([0.90, 0.94, 0.97])))
    for k in range(5):
        cx = left + 20 + 34 * k
        draw.ellipse([cx - 26, 120 + int(rng.integers(0, 50)), cx + 26, 240], fill=_rgb(np.array([0.60, 0.72, 0.58])))
    draw.rectangle([left + 80, -10, left + 88, int(SIZE * 0.72)], fill=_rgb(wall * 1.1))
    draw.rectangle([left - 8, int(SIZE * 0.72), left + 180, int(SIZE * 0.76)], fill=_rgb(wall * 1.15))
    return _blur(image, 7.5)
