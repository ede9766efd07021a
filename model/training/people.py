"""Who a synthetic presenter is: one seed decides face, skin, hair, clothes, room, light and camera.

Only choices live here, as plain numbers and names; geometry and colours are made from them by `hair`, `clothes`,
`textures` and `backdrops`. Colours are sRGB in 0..1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]

# Skin, with the hair colours and eye colours that go with it naturally.
_SKINS: tuple[tuple[Colour, str], ...] = (
    ((0.92, 0.77, 0.70), "light"),
    ((0.90, 0.75, 0.67), "light"),
    ((0.87, 0.71, 0.62), "light"),
    ((0.86, 0.71, 0.61), "medium"),
    ((0.80, 0.64, 0.54), "medium"),
    ((0.74, 0.57, 0.47), "medium"),
    ((0.65, 0.48, 0.39), "dark"),
    ((0.55, 0.39, 0.31), "dark"),
    ((0.45, 0.31, 0.25), "dark"),
)
_HAIR: dict[str, tuple[Colour, ...]] = {
    "light": ((0.66, 0.50, 0.31), (0.50, 0.35, 0.21), (0.36, 0.23, 0.14), (0.25, 0.16, 0.11), (0.52, 0.26, 0.13)),
    "medium": ((0.23, 0.15, 0.10), (0.13, 0.095, 0.08), (0.32, 0.20, 0.13), (0.09, 0.075, 0.075)),
    "dark": ((0.09, 0.07, 0.065), (0.12, 0.085, 0.07), (0.16, 0.105, 0.08)),
}
_GREY: Colour = (0.62, 0.61, 0.60)
_EYES: dict[str, tuple[Colour, ...]] = {
    "light": ((0.36, 0.50, 0.62), (0.42, 0.50, 0.42), (0.44, 0.33, 0.20), (0.35, 0.22, 0.13), (0.45, 0.52, 0.56)),
    "medium": ((0.33, 0.21, 0.12), (0.25, 0.155, 0.09), (0.42, 0.32, 0.18)),
    "dark": ((0.22, 0.135, 0.08), (0.18, 0.11, 0.07)),
}
_HAIR_STYLES: dict[bool, tuple[tuple[str, float], ...]] = {
    True: (("long", 3.2), ("bob", 2.0), ("bun", 1.6), ("wavy", 1.8), ("curly", 1.0), ("pixie", 0.8)),
    False: (("short", 2.6), ("side", 2.6), ("slick", 1.2), ("buzz", 1.0), ("bald", 0.5), ("curly_short", 1.2)),
}
_GARMENTS: dict[bool, tuple[tuple[str, float], ...]] = {
    True: (("blazer", 2.4), ("blouse", 2.2), ("sweater", 1.6), ("shirt", 1.2), ("turtleneck", 0.8)),
    False: (("blazer", 2.6), ("shirt", 2.2), ("sweater", 1.6), ("tee", 0.9), ("turtleneck", 0.5)),
}
_CLOTH: tuple[Colour, ...] = (
    (0.16, 0.20, 0.29), (0.22, 0.24, 0.27), (0.30, 0.33, 0.38), (0.45, 0.49, 0.53), (0.38, 0.22, 0.24),
    (0.20, 0.33, 0.34), (0.28, 0.36, 0.29), (0.55, 0.47, 0.40), (0.33, 0.27, 0.38), (0.62, 0.58, 0.53),
    (0.24, 0.33, 0.48), (0.70, 0.52, 0.44), (0.12, 0.13, 0.15),
)  # fmt: skip
_DARK_CLOTH: tuple[Colour, ...] = (
    (0.13, 0.16, 0.24), (0.17, 0.18, 0.20), (0.25, 0.27, 0.31), (0.33, 0.30, 0.28), (0.15, 0.22, 0.25),
    (0.36, 0.36, 0.38), (0.20, 0.17, 0.20),
)  # fmt: skip
_PALE_CLOTH: tuple[Colour, ...] = (
    (0.90, 0.90, 0.89), (0.78, 0.84, 0.90), (0.90, 0.86, 0.80), (0.86, 0.79, 0.79), (0.80, 0.85, 0.82),
    (0.93, 0.93, 0.94),
)  # fmt: skip
# Unit direction among the identity modes along which jaw, nose, brow ridge and neck get finer and lips and eyes fuller
# (gradient of those landmark distances).
_FEMININE = np.zeros(60)
_FEMININE[:24] = (69, -6, -30, -14, -28, 32, 12, 16, -17, 0, 18, -10, -11, -6, 1, -2, 2, 1, -10, 6, 0, -10, 12, -4)
_FEMININE /= np.linalg.norm(_FEMININE)
BACKDROPS = ("gradient", "wall", "office", "bokeh", "shelf", "window")


@dataclass(frozen=True)
class Camera:
    zoom: float
    shift_x: float
    shift_y: float


@dataclass(frozen=True)
class Light:
    """Key light: `side` -1 left or 1 right of the picture; warmth shifts key and fill apart."""

    side: float
    height: float
    warmth: float
    key: float
    fill: float
    rim: float


@dataclass(frozen=True)
class Person:
    seed: int
    identity: tuple[float, ...]
    feminine: bool
    age: float
    skin: Colour
    lips: float
    freckles: float
    hair_style: str
    hair_colour: Colour
    hair_part: float
    brow_weight: float
    eye_colour: Colour
    beard: str
    glasses: str
    glasses_colour: Colour
    garment: str
    cloth: Colour
    under_cloth: Colour
    pattern: str
    backdrop: str
    backdrop_hue: float
    light: Light
    camera: Camera

    @staticmethod
    def sample(seed: int) -> Person:
        """The person of a seed; the same for ever."""
        rng = np.random.default_rng([seed, 7_041])
        feminine = bool(rng.random() < 0.5)
        skin, family = _SKINS[rng.integers(len(_SKINS))]
        age = float(rng.beta(1.6, 2.4))
        hair = np.array(_HAIR[family][rng.integers(len(_HAIR[family]))])
        grey = float(np.clip((age - 0.55) * 2.6, 0, 0.9)) * float(rng.random() < 0.8)
        hair = hair * (1 - grey) + np.array(_GREY) * grey
        eyes = _EYES[family]
        garment = _choose(rng, _GARMENTS[feminine])
        cloth = _CLOTH if garment in ("blouse", "sweater", "tee", "turtleneck") else _DARK_CLOTH
        if garment == "shirt":
            cloth = _PALE_CLOTH
        return Person(
            seed=seed,
            identity=_identity(rng, feminine),
            feminine=feminine,
            age=age,
            skin=_jitter(rng, skin, 0.02),
            lips=float(rng.uniform(0.5, 1.0) if feminine else rng.uniform(0.1, 0.35)),
            freckles=float(rng.uniform(0.4, 1.0)) if family == "light" and rng.random() < 0.2 else 0.0,
            hair_style=_choose(rng, _HAIR_STYLES[feminine]),
            hair_colour=_jitter(rng, tuple(hair), 0.015),
            hair_part=float(rng.choice([-1.0, 1.0]) * rng.uniform(0.2, 1.0)),
            brow_weight=float(rng.uniform(0.45, 0.75) if feminine else rng.uniform(0.7, 1.0)),
            eye_colour=_jitter(rng, eyes[rng.integers(len(eyes))], 0.03),
            beard="none" if feminine else _choose(
                rng, (("none", 3.0), ("stubble", 2.2), ("short", 1.0), ("goatee", 0.5))),
            glasses=_choose(rng, (("none", 9.5), ("round", 1.2), ("square", 1.6))),
            glasses_colour=((0.07, 0.07, 0.08), (0.28, 0.17, 0.10), (0.42, 0.40, 0.38))[rng.integers(3)],
            garment=garment,
            cloth=_jitter(rng, cloth[rng.integers(len(cloth))], 0.02),
            under_cloth=_jitter(rng, _PALE_CLOTH[rng.integers(len(_PALE_CLOTH))], 0.02),
            pattern=_choose(rng, (("plain", 3.0), ("stripe", 0.7), ("check", 0.5))),
            backdrop=BACKDROPS[rng.integers(len(BACKDROPS))],
            backdrop_hue=float(rng.random()),
            light=Light(
                side=float(rng.choice([-1.0, 1.0])),
                height=float(rng.uniform(0.45, 0.85)),
                warmth=float(rng.uniform(-0.02, 0.08)),
                key=float(rng.uniform(0.84, 1.02)),
                fill=float(rng.uniform(0.28, 0.42)),
                rim=float(rng.uniform(0.15, 0.55)),
            ),
            camera=Camera(*(float(value) for value in rng.uniform(-1, 1, 3) * (0.04, 0.4, 0.3) + (1.0, 0.0, 0.0))),
        )


def _choose(rng: np.random.Generator, options: tuple[tuple[str, float], ...]) -> str:
    weights = np.array([weight for _, weight in options])
    return options[int(rng.choice(len(options), p=weights / weights.sum()))][0]


def _jitter(rng: np.random.Generator, colour: tuple[float, ...], amount: float) -> Colour:
    red, green, blue = np.clip(np.array(colour) + rng.normal(0, amount, 3) * 0.3 + rng.normal(0, amount), 0.03, 0.97)
    return float(red), float(green), float(blue)


def _identity(rng: np.random.Generator, feminine: bool) -> tuple[float, ...]:
    """Mild coefficients: far from the mean the modes leave pleasant faces; later modes are noise-like."""
    sigma = np.linspace(0.72, 0.55, 60)
    coefficients = np.clip(rng.normal(0, 1, 60), -1.7, 1.7) * sigma
    along = float(coefficients @ _FEMININE)
    wanted = rng.uniform(0.5, 1.3) if feminine else rng.uniform(-1.0, 0.0)
    coefficients += (wanted - along) * _FEMININE
    return tuple(float(value) for value in np.clip(coefficients, -1.8, 1.8))


@dataclass(frozen=True)
class FramePose:
    """One frame. Angles in radians: yaw > 0 turns to the right of the picture, pitch > 0 looks up, roll > 0 tilts
    towards the right of the picture; x (right) and y (up) in face heights; gaze_x > 0 right, gaze_y > 0 up."""

    expression: np.ndarray
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    x: float = 0.0
    y: float = 0.0
    scale: float = 1.0
    gaze_x: float = 0.0
    gaze_y: float = 0.0
