"""Distil the guided teacher into a student of one or two steps, on contexts the student made itself.

Consistency distillation (arXiv 2303.01469): at level t the student must say what its average says one teacher step nearer to the data.
The teacher is guided away from silence (audio guidance of EchoMimicV3), because a regression says everything a little too softly;
the student learns the guided answer, so that serving needs one pass where the teacher needs two (arXiv 2210.03142).
The clean frames it sees as context are, half the time, its own one-step predictions instead of the truth (self-rollout), and a
share of the loss is plain regression to the truth, which is safe here because the motion controls leave little to chance.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from model.audio import STEP, AudioEncoder
from model.conditions import STEPS_BEFORE, STEPS_PER_LATENT
from model.sampler import shifted_sigmas
from model.training.loop import Averaged, Budget, begin, compile_blocks, cosine_rate, mixed_precision, save_checkpoint, set_rate
from model.training.sequences import Batch, SequencePass, noised, sample_batch
from model.training.train_teacher import (
    LENGTH,
    add_arguments,
    build,
    corrupt_context,
    evaluate,
    load_data,
    weighted_error,
)

GRID = 24  # noise levels of the consistency chain
TRUTH_SHARE = 0.25


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


@torch.no_grad()
def consistency_target(
    teacher: Guided, average: SequencePass, batch: Batch, noisy: Tensor, levels: tuple[Tensor, Tensor], context: tuple[Tensor, Tensor]
) -> Tensor:
    """One Euler step of the guided teacher from t to the next level, then the averaged student's clean prediction from there."""
    t, following = levels
    velocity = (noisy - teacher(batch, noisy, t, *context)) / t[..., None, None, None]
    nearer = noisy + (following - t)[..., None, None, None] * velocity
    target = average(batch, nearer, following.clamp(min=0.02), *context)
    at_data = (following <= 0)[..., None, None, None]
    return torch.where(at_data, nearer, target)


def quiet_tokens(encoder: AudioEncoder) -> Tensor:
    """Audio tokens of silence [12, 192]."""
    length = (STEPS_BEFORE + STEPS_PER_LATENT) * STEP + encoder.context_samples + encoder.lookahead_samples
    return encoder(torch.zeros(1, length))[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--guidance", type=float, default=1.5, help="of the teacher's sound against silence; 1 = none")
    args = parser.parse_args()
    begin(args.seed)
    rng, generator = np.random.default_rng(args.seed + 1), torch.Generator().manual_seed(args.seed + 1)
    teacher, student = build(), build()
    teacher.load_state_dict(load_file(args.teacher))
    student.load_state_dict(teacher.state_dict())
    teacher, student = teacher.to(args.device).requires_grad_(False), student.to(args.device)
    data = load_data(args)
    average = Averaged(student, 0.99)
    weight = data.weight
    guided = Guided(teacher, quiet_tokens(AudioEncoder.load(args.audio)).to(args.device), args.guidance)
    compile_blocks(student.dit.blocks)  # the others only ever go forward: compiling them takes longer than it saves
    optimiser = torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], lr=args.rate, betas=(0.9, 0.95), weight_decay=0.0)
    grid = torch.tensor([*shifted_sigmas(GRID, 3.0), 0.0])
    budget = Budget(args.minutes)
    steps = 0
    bar = tqdm(total=100, desc="student", unit="%")
    while budget.progress < 1.0:
        set_rate(optimiser, cosine_rate(budget.progress, args.rate))
        batch = sample_batch(data.train, args.batch, LENGTH, rng, args.device)
        with mixed_precision(args.device):
            source = rolled_out(average.module, batch, generator) if rng.random() < 0.5 else batch
            context = corrupt_context(source.latents, generator)
            index = torch.randint(0, GRID, batch.latents.shape[:2], generator=generator)
            # Where sampling starts matters most.
            index = torch.where(torch.rand(index.shape, generator=generator) < 0.3, torch.zeros_like(index), index)
            t, following = grid[index].to(args.device), grid[index + 1].to(args.device)
            noisy = noised(batch.latents, t, torch.randn(batch.latents.shape, generator=generator).to(args.device))
            target = consistency_target(guided, average.module, batch, noisy, (t, following), context)
            out = student(batch, noisy, t, *context).float()
        chain = weighted_error(out, target.float(), weight)
        truth = weighted_error(out, batch.latents, weight)
        loss = ((1 - TRUTH_SHARE) * chain + TRUTH_SHARE * truth).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step()
        average.update(student)
        steps += 1
        bar.n = int(100 * budget.progress)
        bar.set_postfix(step=steps, loss=f"{loss.item():.4f}", truth=f"{truth.mean().item():.4f}")
        if steps % 200 == 0:
            print(f"\nstep {steps} held-out error {evaluate(average.module, data.held_out, weight):.4f}", flush=True)
            save_checkpoint(args.checkpoint, average=average.module.state_dict(), steps=steps)
    final = average.module.cpu()
    save_file({k: v.contiguous() for k, v in final.state_dict().items()}, args.out)
    metrics = {"steps": steps, "batch": args.batch, "seed": args.seed, "minutes": args.minutes, "grid": GRID, "guidance": args.guidance}
    metrics["held_out_error"] = evaluate(final, data.held_out, weight.cpu())
    args.out.with_suffix(".json").write_text(json.dumps({"student": metrics}, indent=2))


if __name__ == "__main__":
    main()
