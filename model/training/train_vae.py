"""Train the embedded preset's autoencoder on rendered clips: principal components first, then the corrections.

Loss: L1, four times heavier around the mouth and twice around the eyes, plus an L1 of picture gradients for sharpness; noise on the
latents makes the decoder tolerant of what a generator gets slightly wrong.
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

from model.config import PRESENTER_VAE
from model.training.clips import clip_paths, load_clip
from model.training.loop import Averaged, Budget, cosine_rate, psnr, save_checkpoint, set_rate, to_picture_tensor
from model.vae import PatchVAE

MOUTH_BOX = (slice(136, 196), slice(94, 162))  # rows, columns: where the renderer's framing puts the mouth
EYES_BOX = (slice(84, 122), slice(78, 178))


def load_frames(folder: Path, every: int) -> np.ndarray:
    """uint8 [N, 256, 256, 3]: every n-th frame and the references of all clips in a folder."""
    parts = []
    for path in tqdm(clip_paths(folder), desc="reading", unit="clip"):
        clip = load_clip(path)
        parts += [clip.frames[::every], clip.references]
    return np.concatenate(parts)


def principal_components(frames: np.ndarray, patch: int, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Components [count, 3*patch*patch], standard deviations, mean patch; patches near the mouth and eyes count more."""
    picks = frames[rng.choice(len(frames), min(1500, len(frames)), replace=False)]
    pictures = to_picture_tensor(picks)
    patches = F.unfold(pictures, patch, stride=patch).transpose(1, 2)
    weight = torch.ones(pictures.shape[2:])
    weight[MOUTH_BOX] = 6.0
    weight[EYES_BOX] = 3.0
    weight_P = F.avg_pool2d(weight[None, None], patch).flatten()
    mean = patches.mean(dim=(0, 1))
    centred = (patches - mean) * weight_P.sqrt()[None, :, None]
    flat = centred.reshape(-1, centred.shape[-1]).double()
    _, vectors = torch.linalg.eigh(flat.T @ flat)
    basis = vectors.flip(1)[:, :count].T.float().contiguous()
    scale = ((patches - mean) @ basis.T).reshape(-1, count).std(dim=0)
    return basis, scale, mean


def picture_loss(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    error = ((prediction - target).abs() * weight).mean()
    for dim in (2, 3):
        narrowed = weight.narrow(dim - 2, 0, weight.shape[dim - 2] - 1)
        error = error + ((prediction.diff(dim=dim) - target.diff(dim=dim)).abs() * narrowed).mean()
    return error


def loss_weight(size: int = 256) -> Tensor:
    weight = torch.ones(size, size)
    weight[EYES_BOX] = 2.0
    weight[MOUTH_BOX] = 4.0
    return weight / weight.mean()


@torch.no_grad()
def evaluate(vae: PatchVAE, frames: np.ndarray) -> dict[str, float]:
    pictures = to_picture_tensor(frames)
    decoded = torch.cat([vae.decode_frames(vae.encode_frames(p)) for p in pictures.split(8)])
    box = (..., *MOUTH_BOX)
    return {"psnr_db": psnr(decoded, pictures), "psnr_mouth_db": psnr(decoded[box], pictures[box])}


@torch.no_grad()
def calibrate(vae: PatchVAE, folder: Path, max_clips: int = 60) -> None:
    """Latent statistics a channel over whole clips, so that latents have zero mean and unit variance."""
    vae.latent_mean.zero_()
    vae.latent_std.fill_(1.0)
    latents = []
    for path in clip_paths(folder)[:max_clips]:
        frames = load_clip(path).frames
        latents.append(vae.encode(to_picture_tensor(frames[: len(frames) // 4 * 4])))
    stacked = torch.cat(latents)
    vae.latent_mean.copy_(stacked.mean(dim=(0, 2, 3)))
    vae.latent_std.copy_(stacked.std(dim=(0, 2, 3)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--eval", type=Path, required=True, help="clips of other people")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--every", type=int, default=3, help="use every n-th frame of a clip")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    frames = load_frames(args.data, args.every)
    held_out = load_frames(args.eval, 9)
    vae = PatchVAE(PRESENTER_VAE)
    vae.initialise(*principal_components(frames, PRESENTER_VAE.patch, PRESENTER_VAE.frame_channels, rng))
    print("closed form:", evaluate(vae, held_out), flush=True)
    vae = vae.to(args.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(vae.parameters(), lr=1e-3)
    average = Averaged(vae, 0.998)
    weight = loss_weight().to(args.device)
    budget = Budget(args.minutes)
    steps = 0
    bar = tqdm(total=100, desc="autoencoder", unit="%")
    while budget.progress < 1.0:
        set_rate(optimiser, cosine_rate(budget.progress, 1e-3))
        batch = to_picture_tensor(frames[rng.choice(len(frames), args.batch)]).to(args.device)
        batch = _augment(batch, rng).contiguous(memory_format=torch.channels_last)
        with torch.autocast(args.device, torch.bfloat16):
            latents = vae.encode_frames(batch)
            noise = torch.randn_like(latents) * 0.05 * torch.rand(len(latents), 1, 1, 1, device=args.device)
            decoded = vae.decode_frames(latents + noise)
        loss = picture_loss(decoded.float(), batch, weight)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        average.update(vae)
        steps += 1
        bar.set_postfix(step=steps, loss=f"{loss.item():.4f}")
        bar.n = int(100 * budget.progress)
        bar.refresh()
        if steps % 500 == 0:
            save_checkpoint(args.checkpoint, vae=average.module.state_dict(), steps=steps)
    final = average.module.cpu().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    calibrate(final, args.data)
    metrics: dict[str, float] = evaluate(final, held_out)
    metrics |= {"steps": steps, "batch": args.batch, "seed": args.seed, "minutes": args.minutes, "frames": len(frames)}
    print(metrics, flush=True)
    save_file(final.state_dict(), args.out)
    args.out.with_suffix(".json").write_text(json.dumps({"vae": metrics}, indent=2))


def _augment(batch: Tensor, rng: np.random.Generator) -> Tensor:
    """Mirror, gain and tint: cheap variety of people and light."""
    if rng.random() < 0.5:
        batch = batch.flip(3)
    gain = torch.as_tensor(rng.uniform(0.8, 1.15, (len(batch), 3, 1, 1)), dtype=batch.dtype, device=batch.device)
    return ((batch + 1) * gain - 1).clamp(-1, 1)


if __name__ == "__main__":
    main()
