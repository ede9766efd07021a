"""What a face tracker that the project did not train sees in a video: MediaPipe FaceMesh, and what is measured on its points.

The refined mesh looks at eyes and lips again at a higher resolution: on renders it reads a shut eye as 0.05 to 0.2 of its width where
the plain one stops at 0.2 to 0.3, an open one as 0.3, and sealed lips as sealed. Points of frames without a face are NaN.
Legend: F frames, P points.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from model.errors import ConfigError

TRACKED_SIZE = 512  # frames are enlarged to this: FaceMesh was made for faces of a few hundred pixels
UPPER_LIP, LOWER_LIP, FOREHEAD, CHIN = 13, 14, 10, 152
# Corner, two points of the upper lid, corner, two of the lower lid (the eye aspect ratio of Soukupova and Cech, 2016).
EYES = ((33, 160, 158, 133, 153, 144), (362, 385, 387, 263, 373, 380))
# Points that the skull carries: forehead, bridge and sides of the nose, corners of the eyes, temples, cheekbones.
SKULL = (10, 151, 9, 8, 168, 6, 197, 195, 5, 4, 48, 278, 33, 133, 362, 263, 127, 356, 234, 454, 117, 346, 50, 280)


@dataclass(frozen=True, slots=True)
class Track:
    """points float32 [F, P, 3]: x and y in picture widths, z in about the same scale."""

    points: np.ndarray

    @property
    def face_found(self) -> float:
        return float(np.mean(~np.isnan(self.points[:, 0, 0])))

    def lip_opening(self) -> np.ndarray:
        """Distance of the inner lips over the height of the face [F]."""
        flat = self.points[..., :2]
        height = np.linalg.norm(flat[:, CHIN] - flat[:, FOREHEAD], axis=1)
        return np.linalg.norm(flat[:, UPPER_LIP] - flat[:, LOWER_LIP], axis=1) / height

    def eye_opening(self) -> np.ndarray:
        """Height over width of the eyes [F], the mean of both."""
        flat = self.points[..., :2]
        ratios = []
        for outer, up_a, up_b, inner, low_b, low_a in EYES:
            heights = [np.linalg.norm(flat[:, up] - flat[:, low], axis=1) for up, low in ((up_a, low_a), (up_b, low_b))]
            ratios.append(np.mean(heights, axis=0) / np.linalg.norm(flat[:, outer] - flat[:, inner], axis=1))
        return np.mean(ratios, axis=0)

    def skull(self) -> np.ndarray:
        """Points the skull carries in frames that show a face, float64 [F, len(SKULL), 3]."""
        return self.points[~np.isnan(self.points[:, 0, 0])][:, SKULL].astype(np.float64)


def track(frames: Iterable[np.ndarray], refined: bool = True) -> Track:
    """Follows one face through a video, uint8 RGB [H, W, 3] each. Raises ConfigError where MediaPipe is not installed."""
    try:
        import mediapipe
    except ImportError as error:
        raise ConfigError(
            "tracker_missing", "the face tracker, mediapipe 0.10.14, is not installed",
            "pip install mediapipe==0.10.14, with a Python before 3.13",
        ) from error  # fmt: skip
    num_points = 478 if refined else 468
    rows = []
    with mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=False, max_num_faces=1, refine_landmarks=refined) as mesh:
        for frame in frames:
            large = Image.fromarray(frame).resize((TRACKED_SIZE, TRACKED_SIZE), Image.Resampling.BICUBIC)
            found = mesh.process(np.asarray(large)).multi_face_landmarks
            points = [(p.x, p.y, p.z) for p in found[0].landmark] if found else np.full((num_points, 3), np.nan)
            rows.append(np.asarray(points, dtype=np.float32))
    return Track(np.stack(rows))


@dataclass(frozen=True, slots=True)
class Aligned:
    """Point sets moved, turned and scaled onto a template: shape [F, P, 3], rotation [F, 3, 3], centre [F, 3], scale [F]."""

    shape: np.ndarray
    rotation: np.ndarray
    centre: np.ndarray
    scale: np.ndarray


def align(points_FP3: np.ndarray, template_P3: np.ndarray) -> Aligned:
    """Least-squares similarity onto a centred template of unit size (Kabsch 1976)."""
    centred, centre, scale = _unit(points_FP3)
    u, _, vt = np.linalg.svd(np.einsum("fpi,pj->fij", centred, template_P3))
    u[:, :, 2] *= np.linalg.det(u @ vt)[:, None]  # -1 where the best fit would be a mirror image
    return Aligned(centred @ u @ vt, u @ vt, centre, scale)


def _unit(points_FP3: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centred and of root mean square radius 1; with the centre [F, 3] and the radius [F] before."""
    centre = points_FP3.mean(axis=1)
    centred = points_FP3 - centre[:, None]
    scale = np.sqrt((centred**2).sum(axis=2).mean(axis=1))
    return centred / scale[:, None, None], centre, scale


def mean_shape(points_FP3: np.ndarray) -> np.ndarray:
    """The shape that a video's points turn about [P, 3], centred, of unit size, as turned as in the first frame."""
    template = _unit(points_FP3[:1])[0][0]
    for _ in range(3):
        template = _unit(align(points_FP3, template).shape.mean(axis=0)[None])[0][0]
    return template


def shape_distance(points_FP3: np.ndarray, template_P3: np.ndarray) -> np.ndarray:
    """How far each frame's face is from a template's, once position, turn and size are taken out [F]; in face sizes."""
    return np.sqrt(((align(points_FP3, template_P3).shape - template_P3) ** 2).sum(axis=2).mean(axis=1))


def head_motion(points_FP3: np.ndarray) -> np.ndarray:
    """Turn about three axes in radians and place in face sizes [F, 5]: yaw, pitch, roll, x, y, about the mean pose."""
    found = align(points_FP3, mean_shape(points_FP3))
    # The product of small turns: its antisymmetric part is the vector of angles.
    turn = found.rotation
    pitch, yaw, roll = turn[:, 1, 2] - turn[:, 2, 1], turn[:, 2, 0] - turn[:, 0, 2], turn[:, 0, 1] - turn[:, 1, 0]
    place = found.centre[:, :2] / found.scale.mean()
    return np.concatenate((np.stack((yaw, pitch, roll), axis=1) / 2, place - place.mean(axis=0)), axis=1)


def at_mean_pose(values_F: np.ndarray, motion_F5: np.ndarray) -> np.ndarray:
    """What values would be if the head (`head_motion`) were always where it is on average: what a second-order polynomial of its turns and
    places explains is taken out, the mean stays. A head that moves covers and uncovers its backdrop, and the tracker reads a turned skull
    as another shape, so minutes with more turns would seem darker, or of somebody else. What time explains is not taken for the pose's."""
    count = motion_F5.shape[1]
    poses = motion_F5 / motion_F5.std(axis=0).clip(min=1e-6)
    terms = np.stack((*poses.T, *(poses[:, i] * poses[:, j] for i in range(count) for j in range(i, count))), axis=1)
    terms -= terms.mean(axis=0)
    others = np.stack((np.ones(len(poses)), np.linspace(-1.0, 1.0, len(poses))), axis=1)
    weights = np.linalg.lstsq(np.concatenate((terms, others), axis=1), values_F, rcond=None)[0]
    result: np.ndarray = values_F - terms @ weights[: terms.shape[1]]
    return result
