"""Distil the guided teacher into a student that gives its answer in one pass, on contexts the student made itself.

The teacher is guided away from silence (audio guidance of EchoMimicV3), because a regression says everything a little too softly. The
student learns the guided clean prediction at every noise level (arXiv 2210.03142, first stage), so that serving needs one pass
where the teacher needs two, in the one or two steps that suffice here because the motion controls leave little to chance. The
clean frames it sees as context are, half the time, its own predictions instead of the truth (self-rollout).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from model.audio import STEP, AudioEncoder
from model.conditions import STEPS_BEFORE, STEPS_PER_LATENT
from model.training.loop import Training, begin, compile_blocks, mixed_precision, save_part
from model.training.sequences import Batch, SequencePass, noise_levels, noised, sample_batch
from model.training.train_teacher import (
    CONTEXT_SIGMA,
    LENGTH,
    Data,
    add_sequence_arguments,
    build,
    corrupt_context,
    evaluate,
    load_data,
    reconstruction_loss,
)


@torch.no_grad()
def rolled_out(student: SequencePass, batch: Batch, generator: torch.Generator) -> Batch:
    """The batch with every frame replaced by the student's own prediction from pure noise, to serve as context."""
    ones = torch.ones(batch.latents.shape[:2]).to(batch.latents)
    noise = torch.randn(batch.latents.shape, generator=generator).to(batch.latents)
    sigma = torch.full((len(noise), 1), 0.02).to(noise)
    own = student(batch, noise, ones, batch.latents[:, :-1], sigma)
    return replace(batch, latents=student(batch, noise, ones, own[:, :-1], sigma))


@dataclass(frozen=True, slots=True)
class Guided:
    """The teacher's clean prediction, led away from what it says to silence `quiet` [12, 192]."""

    teacher: SequencePass
    quiet: Tensor
    guidance: float

    @torch.no_grad()
    def __call__(self, batch: Batch, noisy: Tensor, t: Tensor, context: Tensor, sigma: Tensor) -> Tensor:
        spoken = self.teacher(batch, noisy, t, context, sigma)
        unheard = self.teacher(batch, noisy, t, context, sigma, self.quiet.expand_as(batch.audio))
        return unheard + self.guidance * (spoken - unheard)


def quiet_tokens(encoder: AudioEncoder) -> Tensor:
    """Audio tokens of silence [12, 192]."""
    length = (STEPS_BEFORE + STEPS_PER_LATENT) * STEP + encoder.context_samples + encoder.lookahead_samples
    return encoder(torch.zeros(1, length))[0]


@dataclass(frozen=True, slots=True)
class Settings:
    """What a student is trained with; ablations change one at a time."""

    minutes: float
    batch: int
    rate: float
    seed: int = 0
    guidance: float = 1.3  # of the teacher's sound against silence; 1 = none
    rollout_share: float = 0.5  # of steps with contexts the student made itself
    context_sigma: float = CONTEXT_SIGMA  # largest noise of the context
    decay: float = 0.99  # of the averaged weights; 0 = none


def distil(
    teacher: SequencePass, student: SequencePass, data: Data, quiet: Tensor, settings: Settings, device: str,
    checkpoint: Path | None = None,
) -> Training[SequencePass]:  # fmt: skip
    """The finished training, whose average is the student. Reports and writes the checkpoint, if any, every 200 steps."""
    rng, generator = np.random.default_rng(settings.seed + 1), torch.Generator().manual_seed(settings.seed + 1)
    teacher, student = teacher.to(device).requires_grad_(False), student.to(device)
    trained = [p for p in student.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=settings.rate, betas=(0.9, 0.95), weight_decay=0.0)
    training = Training("student", student, optimiser, settings.minutes, decay=settings.decay, report_every=200)
    if checkpoint:
        training.resume(checkpoint)
    guided = Guided(teacher, quiet.to(device), settings.guidance)
    compile_blocks(student.dit.blocks)  # the others only ever go forward: compiling them takes longer than it saves
    while training.goes_on():
        batch = sample_batch(data.train, settings.batch, LENGTH, rng, device, data.chances)
        with mixed_precision(device):
            source = rolled_out(training.average, batch, generator) if rng.random() < settings.rollout_share else batch
            context = corrupt_context(source.latents, generator, settings.context_sigma)
            t = noise_levels(tuple(batch.latents.shape[:2]), generator).to(device)
            noisy = noised(batch.latents, t, torch.randn(batch.latents.shape, generator=generator).to(device))
            target = guided(batch, noisy, t, *context).float()
            out = student(batch, noisy, t, *context).float()
        if training.step(reconstruction_loss(out, target, data.weight, batch.pressed)):
            print(f"\nstep {training.steps} {evaluate(training.average, data.held_out, data.weight)}", flush=True)
            if checkpoint:
                training.save(checkpoint)
    return training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_sequence_arguments(parser)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True, help="written every few minutes; resumed from when present")
    parser.add_argument("--init", type=Path, help="a student to go on from (default: the teacher)")
    parser.add_argument("--guidance", type=float, default=1.3, help="of the teacher's sound against silence; 1 = none")
    args = parser.parse_args()
    begin(args.seed)
    teacher, student, data = build(), build(), load_data(args)
    teacher.load_state_dict(load_file(args.teacher))
    student.load_state_dict(load_file(args.init or args.teacher))
    settings = Settings(args.minutes, args.batch, args.rate, args.seed, args.guidance)
    training = distil(teacher, student, data, quiet_tokens(AudioEncoder.load(args.audio)), settings, args.device, args.checkpoint)
    final = training.average.cpu()
    metrics: dict[str, float] = {"steps": training.steps, "batch": args.batch, "seed": args.seed, "minutes": args.minutes}
    metrics |= {"guidance": args.guidance} | evaluate(final, data.held_out, data.weight.cpu())
    save_part(args.out, final, {"student": metrics}, args.teacher)


if __name__ == "__main__":
    main()
