"""Colours of a frame matched to the first frame's, in 8-bit CIELAB as OpenCV defines it, without OpenCV."""

from __future__ import annotations

import numpy as np

Bytes = np.ndarray  # uint8 [..., 3]

TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
WHITE = np.array([0.950456, 1.0, 1.088754])
FROM_XYZ = np.array([[3.240479, -1.53715, -0.498535], [-0.969256, 1.875991, 0.041556], [0.055648, -0.204043, 1.057311]])
LOWEST_F = -8145  # the least f of X or Z that 8-bit CIELAB can hold, at 14 bits
ONE_14, ONE_15 = 1 << 14, 1 << 15


def _linear(value: np.ndarray) -> np.ndarray:
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _descale(value: np.ndarray, bits: int) -> np.ndarray:
    return (value + (1 << (bits - 1))) >> bits


def _cube_root_table() -> np.ndarray:
    """f of CIELAB at 15 bits, over linear light at 11 bits and half as much again."""
    x = np.arange(256 * 3 // 2 * 8) / (255 * 8)
    return np.rint(ONE_15 * np.where(x < 216 / 24389, 841 / 108 * x + 16 / 116, np.cbrt(x))).astype(np.int64)


def _lightness_tables() -> tuple[np.ndarray, np.ndarray]:
    """Y and f(Y) at 14 bits, for every 8-bit lightness."""
    level = np.arange(256)
    f = np.where(level <= 20, 16 / 116 + level * 5 / (3 * 17 * 29), level * 100 / (255 * 116) + 16 / 116)
    y = np.where(level <= 20, level * 20 * 9 / (17 * 29**3), f**3)
    return np.rint(ONE_14 * y).astype(np.int64), np.rint(ONE_14 * f).astype(np.int64)


def _linear_table() -> np.ndarray:
    """The inverse of f at 14 bits, in whole numbers that are cut towards zero."""
    f = np.arange(LOWEST_F, ONE_14 * 9 // 4 + LOWEST_F)
    low = np.sign(f) * (np.abs(f) * 108 // 841) - ONE_14 * 16 // 116 * 108 // 841
    return np.where(f <= 3390, low, f * f // ONE_14 * f // ONE_14)


def _inverse_gamma_table() -> np.ndarray:
    linear = np.arange(4096) / 4096
    return np.rint(255 * np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)).astype(np.int64)


_Y_OF_LIGHTNESS, _F_OF_LIGHTNESS = _lightness_tables()
_LINEAR_OF_F = _linear_table()
_INVERSE_GAMMA = _inverse_gamma_table()
_FROM_XYZ_12 = np.rint(4096 * FROM_XYZ * WHITE).astype(np.int64)
_GAMMA = np.rint(255 * 8 * _linear(np.arange(256) / 255)).astype(np.int64)
_CUBE_ROOT = _cube_root_table()
_TO_XYZ_12 = np.rint(4096 * TO_XYZ / WHITE[:, None]).astype(np.int64)


def match_colour(frame_HW3: Bytes, first_HW3: Bytes) -> Bytes:
    """Each channel's mean and spread moved to the first frame's."""
    lab, goal = _to_lab(frame_HW3).astype(np.float64), _to_lab(first_HW3).astype(np.float64)
    mean, spread = _statistics(lab)
    goal_mean, goal_spread = _statistics(goal)
    # A flat channel has no spread to divide by; it only moves.
    gain = np.divide(goal_spread, spread, out=np.ones_like(spread), where=spread > 0)
    moved = np.clip((lab - mean) * gain + goal_mean, 0, 255)
    return _to_rgb(np.rint(moved).astype(np.uint8))


def _statistics(lab: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rounded to two decimals, as released."""
    return np.round(lab.mean(axis=(0, 1)), 2), np.round(lab.std(axis=(0, 1)), 2)


def _to_lab(rgb: Bytes) -> Bytes:
    """In whole numbers, as OpenCV computes it: a rounding that differs by one level here is several levels of colour in the end."""
    linear = _GAMMA[rgb]
    f = _CUBE_ROOT[_descale(linear @ _TO_XYZ_12.T, 12)]
    lightness = _descale(296 * f[..., 1] - (16 * 255 * ONE_15 + 50) // 100, 15)
    a = _descale(500 * (f[..., 0] - f[..., 1]) + 128 * ONE_15, 15)
    b = _descale(200 * (f[..., 1] - f[..., 2]) + 128 * ONE_15, 15)
    return np.clip(np.stack((lightness, a, b), axis=-1), 0, 255).astype(np.uint8)


def _to_rgb(lab: Bytes) -> Bytes:
    lightness, a, b = np.moveaxis(lab.astype(np.int64), -1, 0)
    fy = _F_OF_LIGHTNESS[lightness]
    fx = fy + ((5 * a * 53687 + 128) >> 13) - 128 * ONE_14 // 500
    fz = fy - (((b * 41943 + 16) >> 9) - 128 * ONE_14 // 200 + 1)
    xyz = np.stack((_LINEAR_OF_F[fx - LOWEST_F], _Y_OF_LIGHTNESS[lightness], _LINEAR_OF_F[fz - LOWEST_F]), axis=-1)
    return _INVERSE_GAMMA[np.clip(_descale(xyz @ _FROM_XYZ_12.T, 14), 0, 4095)].astype(np.uint8)
