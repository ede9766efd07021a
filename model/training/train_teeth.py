"""Train what finds where a portrait's upper teeth are, behind its lips: the renderer knows, and faces are bent and lit in more ways than
rendered. All else stays as it is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from model.mouth import TEETH_BOX, UpperTeeth, grid_around_mouth, places_of_teeth
from model.training.clips import clip_paths, load_clip
from model.training.loop import Training, add_arguments, begin, save_part, to_picture_tensor
from model.training.photographs import photographed
from model.training.train_teacher import load_vae

AROUND = 1.3  # times the box that teeth are drawn in: where places are judged


class Portraits:
    """The reference pictures of a folder of clips, uint8 [N, H, W, 3], and where their teeth are, float32 [N, NUM_PLACE_TERMS, 2]."""

    def __init__(self, folder: Path) -> None:
        clips = [load_clip(path) for path in tqdm(clip_paths(folder), desc="reading", unit="clip")]
        self.pictures = np.concatenate([clip.references for clip in clips])
        self.teeth = np.concatenate([clip.teeth for clip in clips])

    def take(self, picks: np.ndarray) -> tuple[Tensor, Tensor]:
        """Pictures [n, 3, H, W] in [-1, 1], and where teeth are [n, NUM_PLACE_TERMS, 2]."""
        return to_picture_tensor(self.pictures[picks]), torch.from_numpy(self.teeth[picks])


def bent(pictures: Tensor, where: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """What is looked at of pictures, mirrored or not, stretched, turned, moved, and lit as photographs are [n, 3, h, w], and what place
    in the average person's picture each pixel has [n, h, w, 2]."""
    count = len(pictures)

    def drawn(reach: float, *shape: int) -> Tensor:
        return torch.from_numpy(rng.uniform(-reach, reach, (count, 1, 1, *shape))).float()

    grid = grid_around_mouth(pictures)
    light = (1.0 + (grid * drawn(0.8, 2)).sum(dim=-1)).clamp(0.3, 1.7)[:, None]
    middle = grid.mean(dim=(0, 1))
    x, y = ((grid - middle) * (1.0 + drawn(0.2, 2))).unbind(-1)
    roll = drawn(0.12)
    mirrored = torch.where(drawn(1.0) < 0.0, -1.0, 1.0)
    at = torch.stack((mirrored * (x * roll.cos() - y * roll.sin()), x * roll.sin() + y * roll.cos()), dim=-1)
    at = at + middle + drawn(0.08, 2)
    places = places_of_teeth(where, at)
    # Who is mirrored has left teeth for right ones, and they look alike.
    places = places * torch.stack((mirrored, torch.ones_like(mirrored)), dim=-1)
    shown = F.grid_sample(pictures, at, padding_mode="border", align_corners=False)
    return photographed(shown, light, rng), places


def off_px(found_BHW2: Tensor, true_BHW2: Tensor, size: int) -> Tensor:
    """How far places are off where teeth are, in pixels of a picture of that size [n, 2]."""
    top, bottom, left, right = (2.0 * share - 1.0 for share in TEETH_BOX)
    middle, reach = true_BHW2.new_tensor([left + right, top + bottom]) / 2.0, true_BHW2.new_tensor([right - left, bottom - top]) / 2.0
    here = ((true_BHW2 - middle).abs() < AROUND * reach).all(dim=-1)
    return (found_BHW2 - true_BHW2).abs()[here] * size / 2.0


@torch.no_grad()
def evaluate(teeth: UpperTeeth, portraits: Portraits) -> dict[str, float]:
    """Of held-out people: how far teeth are off beside and above where they should be, in pixels."""
    off = []
    for picks in np.array_split(np.arange(len(portraits.pictures)), max(len(portraits.pictures) // 8, 1)):
        pictures, where = portraits.take(picks)
        grid = grid_around_mouth(pictures)
        off.append(off_px(places_of_teeth(teeth.where(pictures), grid), places_of_teeth(where, grid), pictures.shape[3]))
    aside, above = torch.cat(off).mean(dim=0).tolist()
    return {"off_aside_px": aside, "off_above_px": above}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser, minutes=8.0, batch=16, rate=1e-3)
    parser.add_argument("--vae", type=Path, required=True)
    args = parser.parse_args()
    begin(args.seed)
    rng = np.random.default_rng(args.seed)
    train, held_out = Portraits(args.data), Portraits(args.eval)
    vae = load_vae(args.vae)
    teeth = vae.reference.teeth.requires_grad_(True)
    optimiser = torch.optim.Adam(teeth.parameters(), lr=args.rate, betas=(0.9, 0.98))
    training = Training("teeth", teeth, optimiser, args.minutes, decay=0.995)
    while training.goes_on():
        pictures, where = train.take(rng.integers(len(train.pictures), size=args.batch))
        shown, places = bent(pictures, where, rng)
        found = places_of_teeth(teeth.found(shown), grid_around_mouth(pictures))
        if training.step(off_px(found, places, pictures.shape[3]).mean()):
            print(f"\nstep {training.steps} {evaluate(training.average, held_out)}", flush=True)
    vae.reference.teeth.load_state_dict(training.average.state_dict())
    metrics: dict[str, float] = evaluate(training.average, held_out)
    metrics |= {"steps": training.steps, "batch": args.batch, "seed": args.seed, "minutes": args.minutes}
    print(metrics, flush=True)
    save_part(args.out, vae, {"teeth": metrics}, args.vae)


if __name__ == "__main__":
    main()
