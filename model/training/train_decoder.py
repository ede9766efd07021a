"""Refine the decoder on what the transformer really generates: its latents in, the true pictures out (cf. EchoTorrent, arXiv 2602.13669).

A generator's latents are smoother than an encoder's, and a decoder that only saw the latter shows that as soft lips. Encoder and
transformer stay as they are, so nothing has to be trained again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from model.audio import AudioEncoder
from model.training.clips import Clip, clip_paths, load_clip
from model.training.loop import Averaged, Budget, begin, cosine_rate, psnr, set_rate, to_picture_tensor
from model.training.sequences import SequencePass, cut, load_sequences, to_batch
from model.training.train_student import rolled_out
from model.training.train_teacher import LENGTH, build, load_vae
from model.training.train_vae import MOUTH_BOX, loss_weight, picture_loss
from model.vae import ReferenceVAE


class Generated:
    """Clips with what the transformer makes of them: for a few frames, their generated latents, their reference and the truth."""

    def __init__(self, folder: Path, vae: ReferenceVAE, encoder: AudioEncoder, student: SequencePass) -> None:
        self._clips: list[Clip] = [load_clip(path) for path in clip_paths(folder)]
        self._encoded = load_sequences(folder, vae, encoder, mirrored=False, versions=3)
        self._vae, self._student = vae, student

    @torch.no_grad()
    def take(self, size: int, rng: np.random.Generator, generator: torch.Generator, device: str) -> tuple[torch.Tensor, ...]:
        """latents [size, c, h, w] a frame, references and true frames [size, 3, H, W], all of one clip."""
        index = int(rng.integers(len(self._clips)))
        clip, encoded = self._clips[index], self._encoded[index]
        which = int(rng.random() < 0.25)
        start = int(rng.integers(0, len(encoded.controls) - LENGTH + 1))
        batch = to_batch([cut(encoded, start, LENGTH, which, rng)], device)
        latents = self._vae.unstack(rolled_out(self._student, batch, generator).latents[0])
        picks = torch.from_numpy(rng.choice(len(latents), size, replace=False))
        other = 1 + clip.person_seed % (len(clip.references) - 1)
        reference = to_picture_tensor(clip.references[other if which else 0])[None].expand(size, -1, -1, -1)
        truth = to_picture_tensor(clip.frames[start * 4 + picks.numpy()])
        return latents[picks], reference.to(device), truth.to(device)


@torch.no_grad()
def evaluate(vae: ReferenceVAE, data: Generated, device: str) -> dict[str, float]:
    """PSNR of generated frames of held-out people against the true ones."""
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    pairs = []
    for _ in range(16):
        latents, reference, truth = data.take(6, rng, generator, device)
        pairs.append((vae.decode_frames(latents, vae.reference(reference)).cpu(), truth.cpu()))
    pictures, target = (torch.cat(column) for column in zip(*pairs, strict=True))
    box = (..., *MOUTH_BOX)
    return {"generated_psnr_db": psnr(pictures, target), "generated_psnr_mouth_db": psnr(pictures[box], target[box])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--eval", type=Path, required=True)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--audio", type=Path, required=True)
    parser.add_argument("--student", type=Path, required=True, help="the transformer whose latents are decoded")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--rate", type=float, default=4e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    begin(args.seed)
    rng, generator = np.random.default_rng(args.seed), torch.Generator().manual_seed(args.seed)
    vae, student = load_vae(args.vae).to(args.device), build()
    student.load_state_dict(load_file(args.student))
    student = student.to(args.device).eval().requires_grad_(False)
    encoder = AudioEncoder.load(args.audio)
    train, held_out = (Generated(folder, vae, encoder, student) for folder in (args.data, args.eval))
    print("before:", evaluate(vae, held_out, args.device), flush=True)
    vae.decoder.requires_grad_(True)
    optimiser = torch.optim.Adam(vae.decoder.parameters(), lr=args.rate, betas=(0.9, 0.98))
    average = Averaged(vae, 0.995)
    weight = loss_weight(256, 6.0, 3.0).to(args.device)
    budget, steps = Budget(args.minutes), 0
    bar = tqdm(total=100, desc="decoder", unit="%")
    while budget.progress < 1.0:
        set_rate(optimiser, cosine_rate(budget.progress, args.rate))
        latents, pictures, truth = train.take(args.batch, rng, generator, args.device)
        with torch.no_grad():
            reference = vae.reference(pictures)
        loss = picture_loss(vae.decode_frames(latents, reference), truth, weight)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.decoder.parameters(), 1.0)
        optimiser.step()
        average.update(vae)
        steps += 1
        bar.n = int(100 * budget.progress)
        bar.set_postfix(step=steps, loss=f"{loss.item():.4f}")
        if steps % 300 == 0:
            print(f"\nstep {steps} {evaluate(average.module, held_out, args.device)}", flush=True)
            save_file(average.module.state_dict(), args.out)
    final = average.module.cpu()
    metrics: dict[str, float] = evaluate(final, held_out, "cpu")
    metrics |= {"steps": steps, "batch": args.batch, "seed": args.seed, "minutes": args.minutes}
    print(metrics, flush=True)
    save_file(final.state_dict(), args.out)
    earlier = args.vae.with_suffix(".json")
    args.out.with_suffix(".json").write_text(
        json.dumps((json.loads(earlier.read_text()) if earlier.exists() else {}) | {"decoder": metrics}, indent=2)
    )


if __name__ == "__main__":
    main()
