"""Packs the light ICT Face Model (public repository ICT-VGL/ICT-FaceKit, MIT licence) into the one file `Head` reads.

    python -m model.training.assets ICT-FaceKit/FaceXModel ict_facekit.npz

The folder holds one OBJ a shape: the neutral, `identityNNN` and the expression shapes, all with the same topology.
Displacements are kept as float16, which is finer than a hundredth of a millimetre here. The packed file is built on
the user's machine and is not part of the project.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .head import Head

NUM_IDENTITIES = 60
PACKED_NAME = "ict_facekit.npz"
_NEUTRAL = "generic_neutral_mesh"


@dataclass(frozen=True)
class Obj:
    """A parsed OBJ: vertices [V, 3], uv [T, 2], triangles and their uv [F, 3], the material number [F] and the names."""

    vertices: np.ndarray
    uv: np.ndarray
    triangles: np.ndarray
    uv_triangles: np.ndarray
    material: np.ndarray
    material_names: list[str]


def read_vertices(path: Path) -> np.ndarray:
    """Only the vertices [V, 3] float32 of an OBJ."""
    rows = [line[2:].split() for line in path.read_text().splitlines() if line.startswith("v ")]
    return np.array(rows, np.float32)


def read_obj(path: Path) -> Obj:
    """Quads (a, b, c, d) become (a, b, c) and (a, c, d); materials are numbered in the order they appear."""
    uv: list[list[str]] = []
    corners: list[list[list[int]]] = []
    material: list[int] = []
    names: list[str] = []
    current = 0
    for line in path.read_text().splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "vt":
            uv.append(rest.split()[:2])
        elif kind == "usemtl":
            if rest.strip() not in names:
                names.append(rest.strip())
            current = names.index(rest.strip())
        elif kind == "f":
            face = [[int(number) - 1 for number in corner.split("/")[:2]] for corner in rest.split()]
            for i in range(1, len(face) - 1):
                corners.append([face[0], face[i], face[i + 1]])
                material.append(current)
    index = np.array(corners, np.int32)
    return Obj(
        vertices=read_vertices(path),
        uv=np.array(uv, np.float32),
        triangles=index[:, :, 0],
        uv_triangles=index[:, :, 1],
        material=np.array(material, np.int8),
        material_names=names,
    )


def _displacements(folder: Path, names: list[str], neutral: np.ndarray) -> np.ndarray:
    """float16 [n, V, 3]."""
    return np.stack([(read_vertices(folder / f"{name}.obj") - neutral).astype(np.float16) for name in names])


def pack(folder: Path, target: Path) -> None:
    """Reads a FaceXModel folder and writes the packed file."""
    if not (folder / f"{_NEUTRAL}.obj").exists():
        raise FileNotFoundError(f"{folder} holds no {_NEUTRAL}.obj: give the FaceXModel folder of ICT-FaceKit")
    neutral = read_obj(folder / f"{_NEUTRAL}.obj")
    shapes = sorted(path.stem for path in folder.glob("*.obj"))
    identities = [name for name in shapes if name.startswith("identity")][:NUM_IDENTITIES]
    expressions = [name for name in shapes if not name.startswith("identity") and name != _NEUTRAL]
    landmarks = json.loads((folder / "vertex_indices.json").read_text())["idx_to_landmark_verts"]
    np.savez_compressed(
        target,
        vertices=neutral.vertices,
        triangles=neutral.triangles,
        uv=neutral.uv,
        uv_triangles=neutral.uv_triangles,
        material=neutral.material,
        material_names=np.array(neutral.material_names),
        identity=_displacements(folder, identities, neutral.vertices),
        expression=_displacements(folder, expressions, neutral.vertices),
        expression_names=np.array(expressions),
        landmarks68=np.array(landmarks, np.int32),
    )


def find_head(path: Path) -> Head:
    """The head of a packed file, or of a folder: packs a FaceXModel folder on first use."""
    if path.is_dir():
        packed = path / PACKED_NAME
        if not packed.exists():
            pack(path, packed)
        return Head.load(packed)
    if not path.exists():
        raise FileNotFoundError(f"no head model at {path}: clone ICT-VGL/ICT-FaceKit and give its FaceXModel folder")
    return Head.load(path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Pack the light ICT Face Model.")
    parser.add_argument("folder", type=Path, help="FaceXModel folder of ICT-VGL/ICT-FaceKit")
    parser.add_argument("target", type=Path, help="the .npz to write")
    arguments = parser.parse_args()
    pack(arguments.folder, arguments.target)


if __name__ == "__main__":
    main()
