"""Refine the autoencoder's decoder alone: the latents stay what the transformer was trained on, only the picture gets better.

Latents are made noisy by about the error a generator leaves, so the decoder learns to draw sharp pictures from slightly wrong latents.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from model.config import PRESENTER_VAE
from model.training.loop import Averaged, Budget, cosine_rate, save_checkpoint, set_rate, to_picture_tensor
from model.training.train_vae import evaluate, load_frames, loss_weight, picture_loss
from model.vae import PatchVAE

LATENT_NOISE = 0.12  # largest, in standard deviations of a coefficient


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--eval", type=Path, required=True)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=8e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    frames, held_out = load_frames(args.data, 2), load_frames(args.eval, 9)
    vae = PatchVAE(PRESENTER_VAE)
    vae.load_state_dict(load_file(args.vae))
    vae = vae.to(args.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    trained = [*vae.synthesis.parameters(), *vae.decoder.parameters()]
    for module in (vae.analysis, vae.encoder):
        module.requires_grad_(False)
    optimiser = torch.optim.Adam(trained, lr=args.rate)
    average = Averaged(vae, 0.999)
    weight = loss_weight().to(args.device)
    budget, steps = Budget(args.minutes), 0
    bar = tqdm(total=100, desc="decoder", unit="%")
    while budget.progress < 1.0:
        set_rate(optimiser, cosine_rate(budget.progress, args.rate))
        batch = to_picture_tensor(frames[rng.choice(len(frames), args.batch)]).to(args.device)
        batch = (batch.flip(3) if rng.random() < 0.5 else batch).contiguous(memory_format=torch.channels_last)
        with torch.autocast(args.device, torch.bfloat16):
            with torch.no_grad():
                latents = vae.encode_frames(batch)
            amount = LATENT_NOISE * torch.rand(len(latents), 1, 1, 1, device=args.device)
            decoded = vae.decode_frames(latents + torch.randn_like(latents) * amount)
        loss = picture_loss(decoded.float(), batch, weight)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        average.update(vae)
        steps += 1
        bar.n = int(100 * budget.progress)
        bar.set_postfix(step=steps, loss=f"{loss.item():.4f}")
        if steps % 500 == 0:
            save_checkpoint(args.checkpoint, vae=average.module.state_dict(), steps=steps)
    final = average.module.cpu().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    metrics: dict[str, float] = evaluate(final, held_out)
    metrics |= {"steps": steps, "batch": args.batch, "seed": args.seed, "minutes": args.minutes, "frames": len(frames)}
    print(metrics, flush=True)
    save_file(final.state_dict(), args.out)
    log = args.vae.with_suffix(".json")
    earlier = json.loads(log.read_text()) if log.exists() else {}
    args.out.with_suffix(".json").write_text(json.dumps(earlier | {"decoder": metrics}, indent=2))


if __name__ == "__main__":
    main()
