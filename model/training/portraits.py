"""Draw presenters: people of the renderer, looking at the viewer, lips closed, a hint of a smile; and describe the built-in ones. And the
teeth that everybody is given."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from model.casting import DESCRIPTIONS
from model.controls import neutral_controls
from model.mouth import TEETH_FILE
from model.portraits import PORTRAITS
from model.training.clips import pose_of
from model.training.head import Head
from model.training.people import FramePose, Person
from model.training.renderer import Renderer
from model.training.teeth import drawn_teeth
from model.training.visemes import MOUTH_SHAPES

# Names are only handles. The seeds are none that was trained on, picked by eye for variety of age, origin and style among people whose
# closed lips a face tracker reads as closed (opening below 0.006 of the face's height).
PRESENTERS = {
    "anna": 1151, "bruno": 1041, "clara": 1095, "daniel": 1059, "elena": 1076, "femi": 1038, "grace": 1105, "henry": 1058,
    "ines": 1098, "julian": 1030, "maya": 1060, "oscar": 1018,
}  # fmt: skip


def draw(head: Head, renderer: Renderer, seed: int) -> np.ndarray:
    """uint8 RGB [256, 256, 3]."""
    return renderer.render(Person.sample(seed), _still(head))


def _still(head: Head) -> FramePose:
    return pose_of(head, neutral_controls(), np.zeros(len(MOUTH_SHAPES), dtype=np.float32))


def save(picture: np.ndarray, path: Path) -> None:
    Image.fromarray(picture).save(path, optimize=True)


def describe(person: Person) -> list[str]:
    """The traits that a prompt may ask for, words of `model.casting.TRAITS`."""
    age = "young" if person.age < 0.4 else "middle-aged" if person.age < 0.7 else "old"
    red, _, blue = person.hair_colour
    colour = "grey" if red < 1.25 * blue and red > 0.3 else "black" if red < 0.14 else "brown" if red < 0.45 else "blond"
    length = "bald" if person.hair_style == "bald" else "long hair" if person.hair_style in ("long", "wavy") else "short hair"
    skin = "light" if person.skin[0] > 0.75 else "dark" if person.skin[0] < 0.55 else "medium"
    beard = {"short": "beard", "goatee": "beard", "stubble": "stubble"}.get(person.beard)
    traits = ["woman" if person.feminine else "man", age, length, f"{colour} hair", f"{skin} skin"]
    return traits + [trait for trait in (beard, None if person.glasses == "none" else "glasses") if trait]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--head", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=PORTRAITS)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    head = Head.load(args.head)
    renderer = Renderer(head)
    for name, seed in tqdm(PRESENTERS.items(), desc="portraits"):
        save(draw(head, renderer, seed), args.out / f"{name}.png")
    save(drawn_teeth(renderer, _still(head)), TEETH_FILE)
    described = {name: describe(Person.sample(seed)) for name, seed in PRESENTERS.items()}
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(traits)}" for name, traits in described.items())
    (args.out / DESCRIPTIONS.name).write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
