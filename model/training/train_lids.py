"""Train the lids alone: blinking frames, bent, stretched and lit in more ways than people are rendered.

Photographs have brows nearer to the eyes and light from one side; lids that saw renders only reach over those brows, and end in an edge.
Fields, encoder and decoder stay as they are.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from model.motion import pixel_grid
from model.training.loop import Averaged, Budget, begin, cosine_rate, psnr, set_rate
from model.training.train_teacher import load_vae
from model.training.train_vae import EYES_BOX, Frames, Sample, augment, picture_loss
from model.vae import ReferenceVAE

BROW_ROW, BROW_HEIGHT = 92.0, 13.0  # where the framing has brows, in pixels
AROUND = (slice(60, 140), slice(56, 200))  # judged: the eyes and what lids could wrongly cover


def bent(sample: Sample, rng: np.random.Generator) -> Sample:
    """Brows moved by up to 7 pixels towards the eyes or 3 away, everything stretched by up to a fifth, lit from a side."""
    size = sample.frames.shape[-1]
    grid = pixel_grid(size, size, sample.frames.device).clone()
    rows = (grid[..., 1] + 1.0) * size / 2.0
    nearer = float(rng.uniform(-3.0, 7.0))
    grid[..., 1] -= nearer * 2.0 / size * torch.exp(-(((rows - BROW_ROW) / BROW_HEIGHT) ** 2))
    middle = torch.tensor([0.0, EYES_BOX[0].start * 2.0 / size - 0.85])
    grid = (grid - middle) * torch.tensor(rng.uniform(0.83, 1.2, 2), dtype=torch.float32) + middle
    slope = torch.tensor(rng.uniform(-0.5, 0.5, 2), dtype=torch.float32)
    light = (1.0 + (pixel_grid(size, size, grid.device) * slope).sum(dim=-1)).clamp(0.3, 1.7)

    def changed(pictures: Tensor) -> Tensor:
        moved = F.grid_sample(pictures, grid.expand(len(pictures), -1, -1, -1), padding_mode="border", align_corners=False)
        return ((moved + 1.0) * light - 1.0).clamp(-1, 1)

    return replace(sample, frames=changed(sample.frames), references=changed(sample.references))


@torch.no_grad()
def evaluate(vae: ReferenceVAE, data: Frames) -> float:
    """PSNR around the eyes of held-out people's blinking frames, as moved and with lids drawn."""
    pictures, truth = [], []
    for picks in np.array_split(data.blinking, max(len(data.blinking) // 8, 1)):
        sample = data.take(picks[:, None])
        pictures.append(vae.reference(sample.references).moved(sample.moves).shown()[(..., *AROUND)])
        truth.append(sample.frames[(..., *AROUND)])
    return psnr(torch.cat(pictures), torch.cat(truth))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--eval", type=Path, required=True, help="clips of other people")
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    begin(args.seed)
    rng = np.random.default_rng(args.seed)
    train, held_out = Frames(args.data), Frames(args.eval)
    vae = load_vae(args.vae)
    print(f"before: {evaluate(vae, held_out):.2f} dB", flush=True)
    fields = vae.reference.fields
    trained = nn.ModuleList((fields.near_lids, fields.lids)).requires_grad_(True)
    average = Averaged(vae, 0.99)
    optimiser = torch.optim.Adam(trained.parameters(), lr=args.rate, betas=(0.9, 0.98))
    budget, steps = Budget(args.minutes), 0
    bar = tqdm(total=100, desc="lids", unit="%")
    while budget.progress < 1.0:
        set_rate(optimiser, cosine_rate(budget.progress, args.rate))
        sample = bent(augment(train.take(rng.choice(train.blinking, args.batch)[:, None]), rng), rng)
        shown = vae.reference(sample.references).moved(sample.moves).shown()
        weight = torch.ones_like(shown[:1, :1][(..., *AROUND)])
        loss = picture_loss(shown[(..., *AROUND)], sample.frames[(..., *AROUND)], weight)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimiser.step()
        average.update(vae)
        steps += 1
        bar.n = int(100 * budget.progress)
        bar.set_postfix(step=steps, loss=f"{loss.item():.4f}")
        if steps % 300 == 0:
            print(f"\nstep {steps} {evaluate(average.module, held_out):.2f} dB", flush=True)
    final = average.module
    metrics = {"psnr_around_blinking_eyes_db": evaluate(final, held_out), "steps": steps, "batch": args.batch, "minutes": args.minutes}
    print(metrics, flush=True)
    save_file(final.state_dict(), args.out)
    earlier = args.vae.with_suffix(".json")
    card = json.loads(earlier.read_text()) if earlier.exists() else {}
    args.out.with_suffix(".json").write_text(json.dumps(card | {"lids": metrics}, indent=2))


if __name__ == "__main__":
    main()
