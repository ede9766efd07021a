"""Train what finds a portrait's eyes, and the person before the backdrop: pictures bent, stretched and lit in more ways than rendered.

Photographs have brows nearer to the eyes, light from one side and rooms of their own behind; what saw renders only takes brows for eyes.
All else stays as it is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from model.layers import behind, matte_of
from model.lids import lids_of
from model.motion import pixel_grid
from model.training.clips import clip_paths, load_clip
from model.training.loop import Training, add_arguments, begin, mixed_precision, psnr, save_part, to_picture_tensor
from model.training.photographs import photographed
from model.training.train_teacher import load_vae
from model.training.train_vae import EYES_BOX, Frames, eyes_loss
from model.vae import ReferenceVAE

BROW_ROW, BROW_HEIGHT = 92.0, 13.0  # where the framing has brows, in pixels
EYE_ROW, EYE_HEIGHT = 102.0, 16.0
MATTE_SHARE = 1.0


class Portraits:
    """The reference pictures of a folder of clips, uint8 [N, H, W, 3], where they show eyes, bool [N, H, W], and how much of each pixel is
    the person's, uint8 [N, H, W]."""

    def __init__(self, folder: Path) -> None:
        clips = [load_clip(path) for path in tqdm(clip_paths(folder), desc="reading", unit="clip")]
        self.pictures = np.concatenate([clip.references for clip in clips])
        self.eyes = np.concatenate([np.unpackbits(clip.eyes, axis=1) for clip in clips]).reshape(self.pictures.shape[:3]).astype(bool)
        self.mattes = np.concatenate([clip.matte for clip in clips])

    def take(self, picks: np.ndarray) -> Tensor:
        """Red, green and blue in [-1, 1], eyes and matte in 0..1 [n, 5, H, W]."""
        masks = np.stack((self.eyes[picks], self.mattes[picks] / 255.0), axis=1).astype(np.float32)
        return torch.cat((to_picture_tensor(self.pictures[picks]), torch.from_numpy(masks)), dim=1)


def elsewhere(portraits: Tensor, rng: np.random.Generator) -> Tensor:
    """A third of them before the backdrop of a neighbour, upside down or not (light rooms behind fair hair, dark ones behind dark), a third
    before clutter."""
    pictures, matte = portraits[:, :3], portraits[:, 4:]
    backdrop = behind(pictures, matte)
    others = backdrop.roll(1, 0)
    others = others.flip(2) if rng.random() < 0.5 else others
    where = torch.from_numpy(rng.integers(3, size=(len(portraits), 1, 1, 1)))
    seen = torch.where(where == 0, backdrop, torch.where(where == 1, others, clutter(backdrop.shape, rng)))
    return torch.cat((pictures + (1.0 - matte) * (seen - backdrop), portraits[:, 3:]), dim=1)


def clutter(shape: torch.Size, rng: np.random.Generator) -> Tensor:
    """Streets and rooms as no renderer has them: coloured noise of all sizes, soft or in blocks, in [-1, 1]."""
    shown = torch.from_numpy(rng.uniform(-0.8, 0.8, (shape[0], 3, 1, 1))).float().expand(shape)
    falls = rng.uniform(0.3, 1.0)
    for side in (3, 6, 12, 24, 48, 96):
        noise = torch.from_numpy(rng.normal(size=(shape[0], 3, side, side))).float()
        mode = "nearest" if rng.random() < 0.5 else "bilinear"
        amount = torch.from_numpy(rng.uniform(0.0, 1.2, (shape[0], 1, 1, 1)) * (3.0 / side) ** falls).float()
        shown = shown + amount * F.interpolate(noise, size=shape[2:], mode=mode)
    grey = torch.from_numpy(rng.uniform(0.0, 1.0, (shape[0], 1, 1, 1))).float()
    return torch.tanh(torch.lerp(shown, shown.mean(dim=1, keepdim=True), grey))


def bent(portraits: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Each mirrored or not, held aslant, stretched and moved, eyes opened wider or less, brows by up to 12 pixels nearer to them or 3 away;
    tinted, lit from a side, eyes in the shadow of the brow, brighter or darker in the middle tones, blurred, noisy.
    Pictures [n, 3, H, W], eyes and mattes [n, H, W]."""
    size = portraits.shape[-1]
    count = len(portraits)

    def drawn(low: float, high: float, *shape: int) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (count, *shape))).float()

    grid = pixel_grid(size, size, portraits.device).repeat(count, 1, 1, 1)
    light = (1.0 + (grid * drawn(-0.5, 0.5, 1, 1, 2)).sum(dim=-1)).clamp(0.3, 1.7)[:, None]
    rows = (grid[..., 1] + 1.0) * size / 2.0
    near_brows, near_eyes = (torch.exp(-(((rows - at) / high) ** 2)) for at, high in ((BROW_ROW, BROW_HEIGHT), (EYE_ROW, EYE_HEIGHT)))
    light = light * (1.0 - drawn(-0.1, 0.5, 1, 1) * near_eyes)[:, None]
    grid[..., 1] -= (drawn(-3.0, 12.0, 1, 1) * near_brows + drawn(-0.5, 0.4, 1, 1) * (rows - EYE_ROW) * near_eyes) * 2.0 / size
    middle = torch.tensor([0.0, EYE_ROW * 2.0 / size - 1.0])
    x, y = ((grid - middle) * drawn(0.75, 1.25, 1, 1, 2)).unbind(-1)
    turn = drawn(-0.2, 0.2, 1, 1)
    grid = torch.stack((x * turn.cos() - y * turn.sin(), x * turn.sin() + y * turn.cos()), dim=-1) + middle + drawn(-0.05, 0.05, 1, 1, 2)
    grid[..., 0] *= torch.where(drawn(0.0, 1.0, 1, 1) < 0.5, -1.0, 1.0)
    there = F.grid_sample(portraits, grid, padding_mode="border", align_corners=False)
    return photographed(there[:, :3], light, rng), there[:, 3], there[:, 4]


@torch.no_grad()
def evaluate(vae: ReferenceVAE, portraits: Portraits, blinking: Frames) -> dict[str, float]:
    """Of held-out people: how far the edges are off, in pixels, and the matte, in 0..1, in all and within three pixels of outlines, and the
    PSNR around the eyes of blinking frames, portraits only moved."""
    off, mattes, outlines = [], [], []
    for picks in np.array_split(np.arange(len(portraits.pictures)), max(len(portraits.pictures) // 8, 1)):
        held_out = portraits.take(picks)
        found = vae.reference(held_out[:, :3])
        wrong = (matte_of(found.person) - held_out[:, 4:]).abs()
        mattes.append(wrong.flatten())
        outlines.append(wrong[F.max_pool2d(held_out[:, 4:], 7, 1, 3) + F.max_pool2d(-held_out[:, 4:], 7, 1, 3) > 0.5])
        ours, true = lids_of(found.eyes), lids_of(held_out[:, 3] * 16.0 - 8.0)
        shows = true.reach > 1.0
        off += [(ours.top - true.top).abs()[shows], (ours.top + ours.reach - true.top - true.reach).abs()[shows]]
    shown, truth = [], []
    for picks in np.array_split(blinking.blinking, max(len(blinking.blinking) // 8, 1)):
        sample = blinking.take(picks[:, None])
        shown.append(vae.reference(sample.references).moved(sample.moves).shown()[(..., *EYES_BOX)])
        truth.append(sample.frames[(..., *EYES_BOX)])
    wrongs = (("edges_off_px", off), ("matte_off", mattes), ("outline_off", outlines))
    means = {name: float(torch.cat(values).mean()) for name, values in wrongs}
    return means | {"psnr_around_blinking_eyes_db": psnr(torch.cat(shown), torch.cat(truth))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser, minutes=20.0, batch=8, rate=1.5e-3)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--keep-person", action="store_true", help="train on eyes alone")
    args = parser.parse_args()
    begin(args.seed)
    rng = np.random.default_rng(args.seed)
    train, held_out, blinking = Portraits(args.data), Portraits(args.eval), Frames(args.eval)
    vae = load_vae(args.vae)
    trained = nn.ModuleList([vae.reference.eyes.eyes])
    if not args.keep_person:
        trained.append(vae.reference.person)
    trained.requires_grad_(True)
    optimiser = torch.optim.Adam(trained.parameters(), lr=args.rate, betas=(0.9, 0.98))
    training = Training("finders", vae, optimiser, args.minutes, decay=0.997)
    while training.goes_on():
        portraits = train.take(rng.integers(len(train.pictures), size=args.batch))
        pictures, eyes, mattes = bent(elsewhere(portraits, rng), rng)
        with mixed_precision("cpu"):
            loss = eyes_loss(vae.reference.eyes(pictures, *vae.reference.features(pictures)), eyes)
            if not args.keep_person:
                loss = loss + MATTE_SHARE * F.binary_cross_entropy_with_logits(vae.reference.person(pictures), mattes)
        if training.step(loss):
            print(f"\nstep {training.steps} {evaluate(training.average, held_out, blinking)}", flush=True)
    final = training.average
    metrics: dict[str, float] = evaluate(final, held_out, blinking)
    metrics |= {"steps": training.steps, "batch": args.batch, "seed": args.seed, "minutes": args.minutes}
    print(metrics, flush=True)
    save_part(args.out, final, {"finders": metrics}, args.vae)


if __name__ == "__main__":
    main()
