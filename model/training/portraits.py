"""Draw the built-in presenters: chosen people of the renderer, looking at the viewer, lips closed, a hint of a smile."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from model.controls import NUM_CONTROLS
from model.portraits import PORTRAITS
from model.training.clips import neutral_controls, pose_of
from model.training.head import Head
from model.training.people import Person
from model.training.renderer import Renderer
from model.training.visemes import MOUTH_SHAPES

# Names are only handles. The seeds are none that was trained on, picked by eye for variety of age, origin and style among people whose
# closed lips a face tracker reads as closed (opening below 0.006 of the face's height).
PRESENTERS = {
    "anna": 1151, "bruno": 1041, "clara": 1095, "daniel": 1059, "elena": 1076, "femi": 1038, "grace": 1105, "henry": 1058,
    "ines": 1098, "julian": 1030, "maya": 1060, "oscar": 1018,
}  # fmt: skip


def draw(head: Head, renderer: Renderer, seed: int) -> np.ndarray:
    """uint8 RGB [256, 256, 3]."""
    controls = neutral_controls()
    assert controls.shape == (NUM_CONTROLS,)
    return renderer.render(Person.sample(seed), pose_of(head, controls, np.zeros(len(MOUTH_SHAPES), dtype=np.float32)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--head", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=PORTRAITS)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    head = Head.load(args.head)
    renderer = Renderer(head, size=256)
    for name, seed in tqdm(PRESENTERS.items(), desc="portraits"):
        Image.fromarray(draw(head, renderer, seed)).save(args.out / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
