"""The parametric human head (ICT Face Model, light version) that every synthetic presenter is made of.

Holds the arrays of the packed npz, drops the shells that a fragment shader replaces (lacrimal fluid, eye blend, eye
occlusion, iris disc) and answers three questions: the neutral mesh of an identity, the mesh of an expression, and its
normals. Vertices that share a place (the seam between the face and the back of the head) share a normal.
Axes: x to the right of the picture, y up, z out of the face; one unit is about a centimetre.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

SKIN = slice(0, 11248)
MOUTH_SOCKET = slice(11248, 13294)
EYE_SOCKETS = slice(13294, 14062)
GUMS_TONGUE = slice(14062, 17039)
UPPER_TEETH = slice(17039, 19247)
LOWER_TEETH = slice(19247, 21451)
EYE_LEFT = slice(21451, 22221)
EYE_RIGHT = slice(23021, 23791)
LASHES = slice(25351, 26719)
# Material indices of the npz that are drawn: face, back of head, gums and tongue, teeth, both scleras, lashes.
_DRAWN = {"skin": (0, 1), "gums": (2,), "teeth": (3,), "eyes": (4, 6), "lashes": (11,)}
_LASH_SHEET = 114
# The model's tongue rides with the jaw and would stick out between the teeth: rest and extra at jawOpen 1.
_TONGUE_REST = np.array([0.0, -0.35, -0.7], np.float32)
_TONGUE_OPEN = np.array([0.0, -0.5, -1.2], np.float32)
# The scanned upper teeth hide behind the lip: talking people show three millimetres of theirs. The lower ones are sunk a little, those
# beside the middle further, or they stick out of an open jaw.
_UPPER_DOWN, _LOWER_DOWN, _LOWER_DOWN_ASIDE = 0.16, 0.10, 0.45


def _with_teeth_shown(vertices: np.ndarray) -> np.ndarray:
    aside = np.clip((np.abs(vertices[LOWER_TEETH, 0]) - 0.7) / 1.1, 0.0, 1.0)
    vertices[UPPER_TEETH, 1] -= _UPPER_DOWN
    vertices[LOWER_TEETH, 1] -= _LOWER_DOWN + _LOWER_DOWN_ASIDE * aside**2 * (3.0 - 2.0 * aside)
    return vertices


@dataclass(frozen=True)
class Head:
    """All arrays are float32 / int32; `expression` is [57, V*3] so that a pose is one product."""

    vertices: np.ndarray
    triangles: np.ndarray
    material: np.ndarray
    identity: np.ndarray
    expression: np.ndarray
    expression_names: list[str]
    landmarks68: np.ndarray

    @staticmethod
    def load(path: Path) -> Head:
        """Reads the file that `model.training.assets` writes."""
        with np.load(path) as data:
            expression = data["expression"].astype(np.float32)
            # Eyeballs turn rigidly with the gaze; the linear look shapes would shear them.
            expression[:, EYE_LEFT.start : LASHES.start] = 0.0
            return Head(
                vertices=_with_teeth_shown(data["vertices"].astype(np.float32)),
                triangles=data["triangles"].astype(np.int32),
                material=data["material"],
                identity=data["identity"].astype(np.float32),
                expression=expression.reshape(len(expression), -1),
                expression_names=[str(name) for name in data["expression_names"]],
                landmarks68=data["landmarks68"].astype(np.int64),
            )

    @cached_property
    def groups(self) -> dict[str, np.ndarray]:
        """Triangles [n, 3] by what draws them: skin, gums, teeth, eyes, lashes."""
        groups = {name: self.triangles[np.isin(self.material, ids)] for name, ids in _DRAWN.items()}
        # Three sheets of upper and three of lower lashes a side make a heavy line: one upper sheet is enough.
        layer = (groups["lashes"][:, 0] - LASHES.start) // _LASH_SHEET
        groups["lashes"] = groups["lashes"][np.isin(layer, (1, 7))]
        return groups

    @cached_property
    def drawn_triangles(self) -> np.ndarray:
        return np.concatenate(list(self.groups.values()))

    @cached_property
    def _tongue(self) -> np.ndarray:
        """Weight [V, 1] of the tongue inside the gums-and-tongue mesh: between the lower arches, under the palate."""
        p = self.vertices
        weight = np.clip((2.1 - np.abs(p[:, 0])) / 0.5, 0, 1) * np.clip((9.95 - p[:, 2]) / 0.5, 0, 1)
        weight *= np.clip((-2.3 - p[:, 1]) / 0.3, 0, 1) * np.clip((p[:, 1] + 4.9) / 0.4, 0, 1)
        weight[: GUMS_TONGUE.start] = 0.0
        weight[GUMS_TONGUE.stop :] = 0.0
        return weight[:, None].astype(np.float32)

    @cached_property
    def _weld(self) -> np.ndarray:
        """Index [V] of the first vertex at the same place, for skin; other parts keep their own."""
        index = np.arange(len(self.vertices))
        keys = np.round(self.vertices[: EYE_SOCKETS.stop] * 2000).astype(np.int64)
        _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        index[: EYE_SOCKETS.stop] = first[inverse.ravel()]
        return index

    @cached_property
    def _corner_sum(self) -> csr_matrix:
        """Sparse [V, F] that adds face normals up at welded vertices."""
        faces = self.drawn_triangles
        rows = self._weld[faces].T.ravel()
        columns = np.tile(np.arange(len(faces)), 3)
        ones = np.ones(len(rows), np.float32)
        return csr_matrix((ones, (rows, columns)), shape=(len(self.vertices), len(faces)))

    def neutral(self, coefficients: np.ndarray) -> np.ndarray:
        """Vertices [V, 3] of an identity; `coefficients` [n <= 60] are about N(0, 1)."""
        modes = self.identity[: len(coefficients)]
        return self.vertices + np.tensordot(coefficients.astype(np.float32), modes, axes=1)

    def posed(self, neutral: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Vertices [V, 3] with expression `weights` [57]; the tongue stays behind the teeth."""
        used = np.flatnonzero(np.abs(weights) > 1e-4)
        moved = (weights[used].astype(np.float32) @ self.expression[used]).reshape(-1, 3)
        retract = _TONGUE_REST + _TONGUE_OPEN * float(weights[self.expression_names.index("jawOpen")])
        return neutral + moved + self._tongue * retract

    def normals(self, vertices: np.ndarray) -> np.ndarray:
        """Unit normals [V, 3]; zero for what is not drawn."""
        a, b, c = (vertices[self.drawn_triangles[:, i]] for i in range(3))
        u, v = b - a, c - a
        cross = np.empty_like(u)
        for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
            cross[:, i] = u[:, j] * v[:, k] - u[:, k] * v[:, j]
        total = (self._corner_sum @ cross)[self._weld]
        return total / (np.linalg.norm(total, axis=1, keepdims=True) + 1e-12)
