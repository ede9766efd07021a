"""Train the presenter's teacher: flow matching on masked sequences of the soup of tasks, hard ones first, causal window, context made
slightly noisy."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from model.audio import AudioEncoder
from model.config import PRESENTER_DIT, PRESENTER_VAE
from model.dit import DiT
from model.text import StyleEncoder
from model.training.clips import clip_paths, load_clip
from model.training.loop import Training, add_arguments, begin, compile_blocks, mixed_precision, save_part, to_picture_tensor
from model.training.sequences import (
    EncodedClip,
    SequencePass,
    far_turned,
    latent_weight,
    load_sequences,
    noise_levels,
    noised,
    sample_batch,
)
from model.training.soup import SOUP, Order, hard_to_easy
from model.vae import ReferenceVAE, dct_basis

CONTEXT_SIGMA = 0.15  # largest noise the context is trained with
MOUTH_SCALE = 6.0
LENGTH = 6  # latent frames a sequence
VOICES = 8  # versions of every clip's sound
STEADY = 1.0  # of the error of steps between video frames, beside that of the frames
PRESSED = 3.0  # how much more a frame counts in which a bilabial closes the lips


def weighted_error(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean squared error a frame [B, K]."""
    return ((prediction - target).square() * weight).mean(dim=(2, 3, 4))


def reconstruction_loss(prediction: Tensor, target: Tensor, weight: Tensor, pressed: Tensor) -> Tensor:
    """Squared error of latents [B, K, C, h, w] over their video frames and over the steps between those, chunk boundaries included.

    An error that stays is hardly seen, one that jumps is a seam. pressed [B, 4 K]: closures are one or two frames of thirty.
    """
    error = (prediction - target) * weight.sqrt()
    basis = dct_basis(PRESENTER_VAE.time_stride).to(error)
    frames = torch.einsum("kj,btkchw->btjchw", basis, error.unflatten(2, (len(basis), -1))).flatten(1, 2)
    each = frames.square().mean(dim=(2, 3, 4)) * (1.0 + PRESSED * pressed)
    return each.mean() + STEADY * frames.diff(dim=1).square().mean()


def corrupt_context(latents: Tensor, generator: torch.Generator, largest: float = CONTEXT_SIGMA) -> tuple[Tensor, Tensor]:
    """The clean frames as later frames see them in training [B, K-1, C, h, w] and the noise level told with them [B, 1]."""
    sigma = torch.rand(len(latents), 1, generator=generator).to(latents) * largest
    context = latents[:, :-1]
    return noised(context, sigma.expand(-1, context.shape[1]), torch.randn(context.shape, generator=generator).to(latents)), sigma


def build() -> SequencePass:
    return SequencePass(DiT(PRESENTER_DIT), StyleEncoder(PRESENTER_DIT.text_dim))


@dataclass(frozen=True, slots=True)
class Data:
    """Clips to train on and their chances to be drawn, clips of other people, and the loss weight [C, h, w] of their latents."""

    train: list[EncodedClip]
    chances: np.ndarray
    held_out: list[EncodedClip]
    weight: Tensor


def load_vae(path: Path) -> ReferenceVAE:
    vae = ReferenceVAE(PRESENTER_VAE)
    vae.load_state_dict(load_file(path))
    return vae.eval().requires_grad_(False)


def load_data(args: argparse.Namespace) -> Data:
    vae, encoder = load_vae(args.vae), AudioEncoder.load(args.audio)
    train = load_sequences(args.data, vae, encoder, mirrored=True, versions=VOICES)
    held_out = load_sequences(args.eval, vae, encoder, mirrored=False, versions=1)
    portraits = np.stack([load_clip(path).references[0] for path in clip_paths(args.eval)[:8]])
    return Data(train, far_turned(train), held_out, latent_weight(vae, to_picture_tensor(portraits)).to(args.device))


@torch.no_grad()
def evaluate(model: SequencePass, clips: list[EncodedClip], weight: Tensor, sigma: float = 1.0) -> dict[str, float]:
    """Of each task: mean weighted error of one-step predictions on held-out people, as a fraction of the still reference's, of
    an empty answer's where no reference is known."""
    found = {}
    for task in SOUP:
        rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
        errors, floors = [], []
        for _ in range(4 if task == "talk" else 2):
            batch = sample_batch(clips, 8, LENGTH, rng, str(weight.device), soup={task: 1.0})
            t = torch.full(batch.latents.shape[:2], sigma, device=weight.device)
            noisy = noised(batch.latents, t, torch.randn(batch.latents.shape, generator=generator).to(weight))
            out = model(batch, noisy, t, batch.latents[:, :-1], torch.full((8, 1), 0.02, device=weight.device))
            errors.append(weighted_error(out, batch.latents, weight).mean())
            floors.append(weighted_error(batch.still[:, None].expand_as(out), batch.latents, weight).mean())
        found[f"held_out_error_{task}"] = float(torch.stack(errors).mean() / torch.stack(floors).mean())
    return found


@dataclass(frozen=True, slots=True)
class Settings:
    """What a teacher is trained with; ablations change one at a time."""

    minutes: float
    batch: int
    rate: float
    seed: int = 0
    order: Order = hard_to_easy
    decay: float = 0.999  # of the averaged weights; 0 = none


def starting(vae: Path, audio: Path, init: Path | None = None) -> SequencePass:
    """An earlier teacher, for latents of this autoencoder; or one that has learnt nothing but the mouth shapes that the audio encoder
    hears: the best start there is, scaled, because they are small beside the moves."""
    model = build()
    if init:
        model.load_state_dict(load_file(init))
    else:
        mouth = AudioEncoder.load(audio).mouth.state_dict()
        model.dit.mean_latent.hear.load_state_dict({k: v * MOUTH_SCALE for k, v in mouth.items()})
    model.dit.mean_latent.latent_scale.copy_(1.0 / load_vae(vae).latent_std)
    return model


def teach(
    model: SequencePass, data: Data, settings: Settings, device: str, checkpoint: Path | None = None
) -> Training[SequencePass]:
    """The finished training, whose average is the teacher. Reports and writes the checkpoint, if any, every 200 steps."""
    rng, generator = np.random.default_rng(settings.seed), torch.Generator().manual_seed(settings.seed)
    model = model.to(device)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=settings.rate, betas=(0.9, 0.95), weight_decay=0.01)
    training = Training("teacher", model, optimiser, settings.minutes, decay=settings.decay, report_every=200)
    if checkpoint:
        training.resume(checkpoint)
    compile_blocks(model.dit.blocks)
    while training.goes_on():
        batch = sample_batch(data.train, settings.batch, LENGTH, rng, device, data.chances, settings.order(training.progress))
        t = noise_levels(tuple(batch.latents.shape[:2]), generator).to(device)
        noisy = noised(batch.latents, t, torch.randn(batch.latents.shape, generator=generator).to(device))
        context, sigma = corrupt_context(batch.latents, generator)
        with mixed_precision(device):
            out = model(batch, noisy, t, context, sigma)
        if training.step(reconstruction_loss(out.float(), batch.latents, data.weight, batch.pressed)):
            print(f"\nstep {training.steps} {evaluate(training.average, data.held_out, data.weight)}", flush=True)
            if checkpoint:
                training.save(checkpoint)
    return training


def add_sequence_arguments(parser: argparse.ArgumentParser) -> None:
    """What every program that learns from sequences of latents is told."""
    add_arguments(parser, minutes=45.0, batch=8, rate=1e-3, batch_of="sequences")
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--audio", type=Path, required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_sequence_arguments(parser)
    parser.add_argument("--checkpoint", type=Path, required=True, help="written every few minutes; resumed from when present")
    parser.add_argument("--init", type=Path, help="weights to go on from")
    args = parser.parse_args()
    begin(args.seed)
    model, data = starting(args.vae, args.audio, args.init), load_data(args)
    training = teach(model, data, Settings(args.minutes, args.batch, args.rate, args.seed), args.device, args.checkpoint)
    final = training.average.cpu()
    metrics: dict[str, float] = {"steps": training.steps, "batch": args.batch, "seed": args.seed, "minutes": args.minutes}
    metrics |= {"sequences": len(data.train)} | evaluate(final, data.held_out, data.weight.cpu())
    save_part(args.out, final, {"teacher": metrics}, args.init)


if __name__ == "__main__":
    main()
