"""Train how portraits move: the fields alone, from the motion that the renderer knows and from the pictures they explain.

Where motion is known it is told; where hair passes a cheek, or a turned head uncovers what its portrait does not show, the picture itself
says which of the portrait's pixels serve best. Speech is left to the latents: a mouth counts little here, and eyes more.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from model.layers import Layers
from model.motion import Sources, fetch, move_layers
from model.training.loop import Training, add_arguments, begin, mixed_precision, psnr, save_part
from model.training.train_teacher import load_vae
from model.training.train_vae import (
    MOUTH_BOX,
    Frames,
    Sample,
    augment,
    loss_weight,
    motion_shows,
    picture_loss,
)
from model.vae import ReferenceVAE

EACH = 4  # frames of a portrait
MOTION_SHARE, OUTLINE_SHARE = 0.05, 2.0
MOUTH_WEIGHT = 0.2
EYES_WEIGHT = 3.0  # where a pixel too far is seen at once


def outlines_off(layers: Layers, sources: Sources, outline: Tensor) -> Tensor:
    """How far the person's share of pixels is from the renderer's [F, 1, H/2, W/2]. Only the outline is to blame: the person moves as the
    renderer says."""
    return (fetch(F.avg_pool2d(layers.matte, 2), sources.person.detach() + sources.outline) - outline).abs().mean()


def fields_loss(vae: ReferenceVAE, sample: Sample, device: str) -> Tensor:
    """How far portraits moved as told are from the renderer's motion and outline, and from the frames."""
    with mixed_precision(device):
        reference = vae.reference(sample.references)
    moved = reference.moved(sample.moves)
    sources = moved.motion.total()
    told = loss_weight(128, MOUTH_WEIGHT, EYES_WEIGHT).to(sample.motion)
    motion = ((sources.person - sample.motion).abs().sum(dim=1, keepdim=True) * motion_shows(sample) * told).mean()
    outside = (1.0 - F.max_pool2d(sample.inside, 5, stride=1, padding=2)) * loss_weight(256, MOUTH_WEIGHT, EYES_WEIGHT).to(sample.inside)
    picture = picture_loss(move_layers(moved.layers, sources), sample.frames, outside)
    return picture + MOTION_SHARE * motion + OUTLINE_SHARE * outlines_off(moved.layers, sources, sample.outline)


@torch.no_grad()
def evaluate(vae: ReferenceVAE, data: Frames, device: str) -> dict[str, float]:
    """Of held-out people: PSNR of portraits moved as told, mouths left out, how far that is from the renderer's motion, in pixels, and how
    much of a pixel is wrongly the person's or the backdrop's."""
    shown, truth, off, outlines = [], [], [], []
    for picks in np.arange(len(data)).reshape(-1, 1 if len(data) % 8 else 8):
        sample = data.take(picks[:, None]).to(device)
        moved = vae.reference(sample.references).moved(sample.moves)
        person = F.avg_pool2d(fetch(sample.matte, sample.motion), 2) > 0.5
        sources = moved.motion.total()
        off.append((sources.person - sample.motion).norm(dim=1, keepdim=True)[person])
        outlines.append(outlines_off(moved.layers, sources, sample.outline)[None])
        pictures, frames = move_layers(moved.layers, sources), sample.frames.clone()
        frames[(..., *MOUTH_BOX)] = pictures[(..., *MOUTH_BOX)]
        shown.append(pictures.cpu())
        truth.append(frames.cpu())
    means = {name: float(torch.cat(values).mean()) for name, values in (("off_px", off), ("outline_off", outlines))}
    return {"psnr_but_mouth_db": psnr(torch.cat(shown), torch.cat(truth))} | means


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser, minutes=20.0, batch=16, rate=1.5e-3, batch_of=f"frames, {EACH} of each person")
    parser.add_argument("--cast", type=Path, help="folder of the same clips played by others: twice as many people")
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    begin(args.seed)
    rng = np.random.default_rng(args.seed)
    train, held_out = Frames(args.data, cast=args.cast), Frames(args.eval, every=10)
    vae = load_vae(args.vae).to(args.device)
    fields = vae.reference.fields.requires_grad_(True)
    optimiser = torch.optim.Adam(fields.parameters(), lr=args.rate, betas=(0.9, 0.98))
    training = Training("fields", vae, optimiser, args.minutes, decay=0.998)
    while training.goes_on():
        if training.step(fields_loss(vae, augment(train.draw(args.batch, rng, EACH), rng).to(args.device), args.device)):
            print(f"\nstep {training.steps} {evaluate(training.average, held_out, args.device)}", flush=True)
            save_file(training.average.state_dict(), args.out)
    final = training.average.cpu()
    metrics: dict[str, float] = evaluate(final, held_out, "cpu")
    metrics |= {"steps": training.steps, "batch": args.batch, "seed": args.seed, "minutes": args.minutes}
    print(metrics, flush=True)
    save_part(args.out, final, {"fields": metrics}, args.vae)


if __name__ == "__main__":
    main()
