"""Train what finds the eyes of a portrait: pictures of people, bent, stretched and lit in more ways than they are rendered.

Photographs have brows nearer to the eyes and light from one side; what saw renders only takes them for eyes. All else stays as it is.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from model.motion import lids_of, pixel_grid
from model.training.clips import clip_paths, load_clip
from model.training.loop import Averaged, Budget, begin, cosine_rate, psnr, set_rate, to_picture_tensor
from model.training.train_teacher import load_vae
from model.training.train_vae import EYES_BOX, Frames, eyes_loss
from model.vae import ReferenceVAE

BROW_ROW, BROW_HEIGHT = 92.0, 13.0  # where the framing has brows, in pixels
EYE_ROW, EYE_HEIGHT = 102.0, 16.0


class Portraits:
    """The reference pictures of a folder of clips, uint8 [N, H, W, 3], and where they show eyes, bool [N, H, W]."""

    def __init__(self, folder: Path) -> None:
        clips = [load_clip(path) for path in tqdm(clip_paths(folder), desc="reading", unit="clip")]
        self.pictures = np.concatenate([clip.references for clip in clips])
        self.eyes = np.concatenate([np.unpackbits(clip.eyes, axis=1) for clip in clips]).reshape(self.pictures.shape[:3]).astype(bool)

    def take(self, picks: np.ndarray) -> tuple[Tensor, Tensor]:
        """Pictures [n, 3, H, W] in [-1, 1] and eyes [n, H, W]."""
        return to_picture_tensor(self.pictures[picks]), torch.from_numpy(self.eyes[picks].astype(np.float32))


def bent(pictures: Tensor, eyes: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Each mirrored or not, stretched and moved, eyes opened wider or less, brows by up to 10 pixels nearer to them or 3 away; tinted, lit
    from a side, eyes in the shadow of the brow, brighter or darker in the middle tones, blurred, noisy."""
    size = pictures.shape[-1]
    count = len(pictures)

    def drawn(low: float, high: float, *shape: int) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (count, *shape))).float()

    grid = pixel_grid(size, size, pictures.device).repeat(count, 1, 1, 1)
    light = (1.0 + (grid * drawn(-0.5, 0.5, 1, 1, 2)).sum(dim=-1)).clamp(0.3, 1.7)[:, None]
    rows = (grid[..., 1] + 1.0) * size / 2.0
    near_brows, near_eyes = (torch.exp(-(((rows - at) / high) ** 2)) for at, high in ((BROW_ROW, BROW_HEIGHT), (EYE_ROW, EYE_HEIGHT)))
    light = light * (1.0 - drawn(-0.1, 0.5, 1, 1) * near_eyes)[:, None]
    grid[..., 1] -= (drawn(-3.0, 10.0, 1, 1) * near_brows + drawn(-0.5, 0.4, 1, 1) * (rows - EYE_ROW) * near_eyes) * 2.0 / size
    middle = torch.tensor([0.0, EYE_ROW * 2.0 / size - 1.0])
    grid = (grid - middle) * drawn(0.75, 1.25, 1, 1, 2) + middle + drawn(-0.05, 0.05, 1, 1, 2)
    grid[..., 0] *= torch.where(drawn(0.0, 1.0, 1, 1) < 0.5, -1.0, 1.0)
    both = F.grid_sample(torch.cat((pictures, eyes[:, None]), dim=1), grid, padding_mode="border", align_corners=False)
    shown = (both[:, :3] + 1.0) / 2.0 * light * drawn(0.75, 1.2, 1, 1, 1) * drawn(0.85, 1.15, 3, 1, 1) + drawn(-0.1, 0.1, 1, 1, 1)
    shown = shown.clamp(1e-3, 1.0) ** drawn(0.6, 1.7, 1, 1, 1)
    shown = torch.lerp(shown, shown.mean(dim=1, keepdim=True), drawn(-0.5, 0.8, 1, 1, 1))
    blurred = F.avg_pool2d(shown, 3, stride=1, padding=1, count_include_pad=False)
    shown = torch.lerp(shown, blurred, drawn(-0.7, 1.0, 1, 1, 1))  # below 0: sharpened
    shown = shown + torch.from_numpy(rng.normal(size=shown.shape)).float() * drawn(0.0, 0.03, 1, 1, 1)
    return shown.clamp(0, 1) * 2.0 - 1.0, both[:, 3]


@torch.no_grad()
def evaluate(vae: ReferenceVAE, portraits: Portraits, blinking: Frames) -> dict[str, float]:
    """Of held-out people: how far the edges are off, in pixels, and the PSNR around the eyes of blinking frames, portraits only moved."""
    off = []
    for picks in np.array_split(np.arange(len(portraits.pictures)), max(len(portraits.pictures) // 8, 1)):
        pictures, eyes = portraits.take(picks)
        ours, true = lids_of(vae.reference(pictures).eyes), lids_of(eyes * 16.0 - 8.0)
        shows = true.reach > 1.0
        off += [(ours.top - true.top).abs()[shows], (ours.top + ours.reach - true.top - true.reach).abs()[shows]]
    shown, truth = [], []
    for picks in np.array_split(blinking.blinking, max(len(blinking.blinking) // 8, 1)):
        sample = blinking.take(picks[:, None])
        shown.append(vae.reference(sample.references).moved(sample.moves).shown()[(..., *EYES_BOX)])
        truth.append(sample.frames[(..., *EYES_BOX)])
    return {"edges_off_px": float(torch.cat(off).mean()), "psnr_around_blinking_eyes_db": psnr(torch.cat(shown), torch.cat(truth))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--eval", type=Path, required=True, help="clips of other people")
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    begin(args.seed)
    rng = np.random.default_rng(args.seed)
    train, held_out, blinking = Portraits(args.data), Portraits(args.eval), Frames(args.eval)
    vae = load_vae(args.vae)
    fields = vae.reference.fields
    trained = fields.eyes.requires_grad_(True)
    average = Averaged(vae, 0.99)
    optimiser = torch.optim.Adam(trained.parameters(), lr=args.rate, betas=(0.9, 0.98))
    budget, steps = Budget(args.minutes), 0
    bar = tqdm(total=100, desc="eyes", unit="%")
    while budget.progress < 1.0:
        set_rate(optimiser, cosine_rate(budget.progress, args.rate))
        pictures, eyes = bent(*train.take(rng.integers(len(train.pictures), size=args.batch)), rng)
        loss = eyes_loss(vae.reference(pictures).eyes, eyes)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimiser.step()
        average.update(vae)
        steps += 1
        bar.n = int(100 * budget.progress)
        bar.set_postfix(step=steps, loss=f"{loss.item():.4f}")
        if steps % 300 == 0:
            print(f"\nstep {steps} {evaluate(average.module, held_out, blinking)}", flush=True)
    final = average.module
    metrics: dict[str, float] = evaluate(final, held_out, blinking)
    metrics |= {"steps": steps, "batch": args.batch, "seed": args.seed, "minutes": args.minutes}
    print(metrics, flush=True)
    save_file(final.state_dict(), args.out)
    earlier = args.vae.with_suffix(".json")
    card = json.loads(earlier.read_text()) if earlier.exists() else {}
    args.out.with_suffix(".json").write_text(json.dumps(card | {"eyes": metrics}, indent=2))


if __name__ == "__main__":
    main()
