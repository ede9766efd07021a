"""Where a person's upper teeth are in a picture, and one set of them to draw: what `model.mouth` is told.

Teeth of all people are one mesh, bent by the identity, so a vertex of one is the same place of another; from picture to picture a quadratic
map carries them to within 0.07 pixels of 256 (mean of 120 portraits).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from model.mouth import TEETH_BOX, place_terms
from model.training import stage
from model.training.head import UPPER_TEETH, Head
from model.training.meshes import head_weight
from model.training.people import Camera, FramePose, Person
from model.training.resting import RestingFace

if TYPE_CHECKING:
    from model.training.renderer import Renderer

_IN_FRONT = 8.2  # of the mesh's depth: the teeth that are ever seen


def average_person() -> Person:
    return replace(Person.sample(0), identity=(0.0,) * 60, camera=Camera(1.0, 0.0, 0.0))


def seen_teeth(head: Head, person: Person, pose: FramePose) -> np.ndarray:
    """The front teeth's vertices in the picture [n, 2], coordinates in [-1, 1]."""
    face = RestingFace(head, head.neutral(np.array(person.identity, np.float32)))
    which = UPPER_TEETH.start + np.flatnonzero(head.vertices[UPPER_TEETH, 2] > _IN_FRONT)
    weight = float(head_weight(face.neutral[which]).mean())
    return stage.projected(head.posed(face.neutral, face.weights(pose))[which], weight, pose, person)


def place_of_teeth(seen: np.ndarray, average: np.ndarray) -> np.ndarray:
    """The weights of `model.mouth.place_terms` that carry teeth seen in a picture to the average person's, both [n, 2];
    float32 [NUM_PLACE_TERMS, 2]."""
    terms = place_terms(torch.from_numpy(seen[None]))[0].numpy()
    return np.linalg.lstsq(terms, average, rcond=None)[0].astype(np.float32)


def drawn_teeth(renderer: Renderer, still: FramePose) -> np.ndarray:
    """The average person's, as alike left and right as light is not, for `model.mouth.TEETH_FILE`; uint8 RGBA."""
    picture = renderer.upper_teeth(average_person(), still).astype(np.float32)
    top, bottom, left, right = (round(share * len(picture)) for share in TEETH_BOX)
    return ((picture + picture[:, ::-1]) / 2.0).round().astype(np.uint8)[top:bottom, left:right]
