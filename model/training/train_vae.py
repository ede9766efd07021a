"""Train the embedded preset's autoencoder on rendered clips, whose exact motion and uncovered mouths are known.

Loss: L1 of the picture, heavier around mouth and eyes, with an L1 of its gradients for sharpness; L1 of the motion against the renderer's,
with what latents add and without; cross entropy of the cover against where the inside of the mouth shows,
and of where the reference shows eyes and the person. From pictures alone a field and a cover are found slowly or never; told, they are
right within minutes, and the picture's loss then only has to settle what they cannot explain. Noise on the latents keeps them few and
smooth, and makes the decoder tolerant of what a generator gets slightly wrong.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from model.config import PRESENTER_VAE
from model.controls import CONTROL_NAMES
from model.lids import lids_of
from model.motion import BLINK, fetch, pixel_grid
from model.training.clips import clip_paths, load_clip, load_players
from model.training.loop import Training, add_arguments, begin, mixed_precision, psnr, save_part, to_picture_tensor
from model.vae import Drawing, Reference, ReferenceVAE, compose

MOUTH_BOX = (slice(136, 196), slice(94, 162))  # rows, columns: where the renderer's framing puts the mouth
EYES_BOX = (slice(84, 122), slice(78, 178))
LATENT_NOISE = 0.15
MOTION_SHARE, COVER_SHARE = 0.05, 0.3
INSIDE_WEIGHT = 5.0  # teeth and tongue are few pixels, and what everybody looks at
UNSEEN = 0.25  # of the portraits have no features: what is the same for all must not hang on what photographs show otherwise
RECAST = 0.5  # of the steps, each is drawn from what the other player does
UNTOLD = 0.2  # of the frames have no moves told: clips of which only pictures are known are encoded so
# Lids are closed in one frame of twenty, and half closed in fewer: drawn alike, a blink is never learnt.
BLINKING = 0.25
AROUND_EYES = (slice(60, 140), slice(48, 208))  # the eyes and what could be taken for them
EDGE_SHARE = 0.02
EXPLAINED = 0.3  # what is fetched along the true motion may differ so much from the frame, for the motion to be learnt
MIRRORED = torch.tensor([-1.0 if name in ("yaw", "roll", "x", "gaze_x") else 1.0 for name in CONTROL_NAMES])


@dataclass(frozen=True, slots=True)
class Sample:
    """frames [F, 3, H, W] in [-1, 1], those of each reference [R, 3, H, W] in a row; eyes [R, 1, H, W], where a reference shows them; matte
    [R, 1, H, W], where it shows the person; motion [F, 2, H/2, W/2] in pixels; outline [F, 1, H/2, W/2], where frames show the person;
    inside [F, 1, H, W] in 0..1; moves [F, NUM_CONTROLS], the frames' controls less their reference's."""

    frames: Tensor
    references: Tensor
    eyes: Tensor
    matte: Tensor
    motion: Tensor
    outline: Tensor
    inside: Tensor
    moves: Tensor

    def to(self, device: str) -> Sample:
        return Sample(*(getattr(self, name).to(device) for name in Sample.__dataclass_fields__))


class Frames:
    """All frames of a folder of clips, in memory, each with the reference that its motion is told from."""

    def __init__(self, folder: Path, every: int = 1, cast: Path | None = None) -> None:
        """cast: a folder of the same clips, played by others."""
        self._players = load_players(folder, cast)
        clips = self._players[0]
        self._index = [(c, f) for c, clip in enumerate(clips) for f in range(0, len(clip.frames), every)]
        self._place = {frame: i for i, frame in enumerate(self._index)}
        self.blinking = np.array([i for i, (c, f) in enumerate(self._index) if clips[c].controls[f, BLINK] > 0.0], dtype=int)

    def __len__(self) -> int:
        return len(self._index)

    def draw(self, size: int, rng: np.random.Generator, each: int = 2) -> Sample:
        """Frames at random, more often blinking ones than there are; `each` of a reference, whose features are half of the work. The second
        half are those of the first, played by the cast."""
        people = size // each // len(self._players)
        number = int(rng.binomial(people, BLINKING)) if len(self.blinking) else 0
        first = np.concatenate((rng.choice(self.blinking, number), rng.choice(len(self), people - number)))
        return self.take(np.stack([[pick, *self._others(pick, each - 1, rng)] for pick in first]))

    def _others(self, pick: int, number: int, rng: np.random.Generator) -> list[int]:
        """Frames that are told from the same reference of the same clip."""
        c, f = self._index[pick]
        source = self._players[0][c].source
        alike = [g for g in np.flatnonzero(source == source[f]) if (c, g) in self._place]
        return [self._place[c, int(g)] for g in rng.choice(alike, number)]

    def take(self, picks_Rn: np.ndarray) -> Sample:
        """n frames of each of R references; of every player."""
        found = [(clips[c], f) for clips in self._players for c, f in (self._index[i] for i in picks_Rn.flatten())]
        size = found[0][0].frames.shape[1]
        sources = [(clip, clip.source[f]) for clip, f in found[:: picks_Rn.shape[1]]]
        return Sample(
            to_picture_tensor(np.stack([clip.frames[f] for clip, f in found])),
            to_picture_tensor(np.stack([clip.references[which] for clip, which in sources])),
            torch.from_numpy(np.stack([np.unpackbits(clip.eyes[which]).reshape(1, size, size) for clip, which in sources])).float(),
            torch.from_numpy(np.stack([clip.matte[which] for clip, which in sources])).float()[:, None] / 255.0,
            torch.from_numpy(np.stack([clip.motion[f] for clip, f in found])).float().movedim(-1, 1),
            torch.from_numpy(np.stack([clip.outline[f] for clip, f in found])).float()[:, None] / 255.0,
            torch.from_numpy(np.stack([np.unpackbits(clip.inside[f]).reshape(1, size, size) for clip, f in found])).float(),
            torch.from_numpy(np.concatenate([clip.moves(slice(f, f + 1), clip.source[f]) for clip, f in found])),
        )


def augment(sample: Sample, rng: np.random.Generator) -> Sample:
    """Mirror, zoom and shift, gain, contrast and tint, the same for frame and reference: cheap variety of people, cameras and light."""
    frames, references, eyes, matte = sample.frames, sample.references, sample.eyes, sample.matte
    motion, outline, inside, moves = sample.motion, sample.outline, sample.inside, sample.moves
    if rng.random() < 0.5:
        frames, references, eyes, matte, outline, inside = (x.flip(3) for x in (frames, references, eyes, matte, outline, inside))
        motion, moves = motion.flip(3) * torch.tensor([-1.0, 1.0])[:, None, None], moves * MIRRORED
    if rng.random() < 0.6:
        zoom = rng.uniform(0.92, 1.08) * rng.uniform(0.96, 1.04, 2)
        shift = rng.uniform(-6.0, 6.0, 2) * 2.0 / frames.shape[3]
        scale, offset = torch.tensor(zoom, dtype=torch.float32), torch.tensor(shift, dtype=torch.float32)
        masks = (eyes, matte, outline, inside)
        frames, references, eyes, matte, outline, inside = (_resampled(x, scale, offset) for x in (frames, references, *masks))
        motion = _resampled(motion, scale, offset) / scale[:, None, None]
    people = len(references)
    gain = torch.as_tensor(rng.uniform(0.75, 1.2, (people, 1, 1, 1)) * rng.uniform(0.9, 1.1, (people, 3, 1, 1))).float()
    bias = torch.as_tensor(rng.uniform(-0.15, 0.15, (people, 1, 1, 1))).float()

    def lit(x: Tensor) -> Tensor:
        times = len(x) // people
        return ((x + 1.0) * gain.repeat_interleave(times, 0) - 1.0 + bias.repeat_interleave(times, 0)).clamp(-1, 1)

    frames, references = lit(frames), lit(references)
    return Sample(frames, references, eyes, matte, motion, outline, inside, moves)


def _resampled(x: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    grid = pixel_grid(x.shape[2], x.shape[3], x.device) * scale + offset
    return F.grid_sample(x, grid.expand(len(x), -1, -1, -1), padding_mode="border", align_corners=False)


def loss_weight(size: int, mouth: float, eyes: float) -> Tensor:
    """Weight of every pixel [H, W], mean 1."""
    weight = torch.ones(256, 256)
    weight[EYES_BOX], weight[MOUTH_BOX] = eyes, mouth
    weight = F.avg_pool2d(weight[None, None], 256 // size)[0, 0]
    return weight / weight.mean()


def picture_loss(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """L1 of pictures [B, 3, H, W] and of their gradients; weight [H, W] or [B, 1, H, W]."""
    error = ((prediction - target).abs() * weight).mean()
    for dim in (-2, -1):
        narrowed = weight.narrow(dim, 0, weight.shape[dim] - 1)
        error = error + ((prediction.diff(dim=dim) - target.diff(dim=dim)).abs() * narrowed).mean()
    return error


def motion_shows(sample: Sample) -> Tensor:
    """Where the renderer's motion explains a frame [F, 1, H/2, W/2], 1 or 0."""
    # A closing lid comes from where the reference shows the eye: its exact motion explains nothing there.
    wrong = F.avg_pool2d((fetch(sample.references, sample.motion) - sample.frames).abs().mean(dim=1, keepdim=True), 2)
    # A backdrop does not move, whatever the person's motion is there.
    persons = F.avg_pool2d(fetch(sample.matte, sample.motion), 2) > 0.5
    return (persons & (wrong < EXPLAINED)).float()


def change_loss(drawing: Drawing, moved: Tensor, told: Tensor, sample: Sample) -> Tensor:
    """Motion in pixels, where it is defined, of the moves alone [B, 2, H/2, W/2] too where they are told [B]; the cover's cross entropy."""
    outside = F.avg_pool2d(sample.inside, 2)
    defined = motion_shows(sample) * loss_weight(128, 6.0, 6.0).to(sample.motion)
    motion = ((drawing.sources.person - sample.motion).abs().sum(dim=1, keepdim=True) * defined * (outside < 0.99)).mean()
    alone = (moved - sample.motion).abs().sum(dim=1, keepdim=True) * told[:, None, None, None]
    motion = motion + (alone * defined * (outside < 0.01)).mean()
    weight = loss_weight(256, 20.0, 1.0).to(sample.inside)
    cover = F.binary_cross_entropy_with_logits(drawing.cover, sample.inside, weight=weight)
    return MOTION_SHARE * motion + COVER_SHARE * cover


def eyes_loss(found: Tensor, eyes: Tensor) -> Tensor:
    """Of logits [B, H, W]: cross entropy around the eyes [B, H, W], and how far the edges of their openings are off, in pixels of the
    columns that have one."""
    around = (slice(None), *AROUND_EYES)
    loss = F.binary_cross_entropy_with_logits(found[around], eyes[around])
    ours, true = lids_of(found), lids_of(eyes * 16.0 - 8.0)
    shows = (true.reach > 1.0).float()
    off = ((ours.top - true.top).abs() + (ours.reach - true.reach).abs()).clamp(max=20.0)
    return loss + EDGE_SHARE * (off * shows).sum() / shows.sum().clamp(min=1.0)


def unseen(reference: Reference, vae: ReferenceVAE, rng: np.random.Generator) -> Reference:
    """Some of the portraits with the features that people have on average."""
    seen = torch.from_numpy(rng.random((len(reference.picture), 1, 1, 1)) >= UNSEEN).to(reference.picture.device)
    own = (reference.fine, reference.middle, reference.coarse)
    features = (torch.where(seen, mine, usual.mean) for mine, usual in zip(own, vae.reference.of_people(), strict=True))
    return replace(reference, **dict(zip(("fine", "middle", "coarse"), features, strict=True)))


@torch.no_grad()
def evaluate(vae: ReferenceVAE, data: Frames, device: str) -> dict[str, float]:
    """PSNR over held-out people, whole frame, mouth and eyes; mean motion error in the face, in pixels, with latents and without."""
    decoded, truth, errors, alone = [], [], [], []
    for picks in np.arange(len(data)).reshape(-1, 1 if len(data) % 8 else 8):
        sample = data.take(picks[:, None]).to(device)
        reference = vae.reference(sample.references)
        moved = reference.moved(sample.moves)
        latents = vae.encoder(sample.frames, reference, moved)
        drawing = vae.decoder(latents, vae.decoder.canvas(reference), sample.moves).carried(moved.motion)
        decoded.append(compose(moved.layers, drawing).cpu())
        truth.append(sample.frames.cpu())
        errors.append((drawing.sources.person - sample.motion).norm(dim=1)[:, 40:100, 40:88].mean().cpu())
        alone.append((moved.motion.total().person - sample.motion).norm(dim=1)[:, 40:100, 40:88].mean().cpu())
    pictures, target = torch.cat(decoded), torch.cat(truth)
    mouth, eyes = (..., *MOUTH_BOX), (..., *EYES_BOX)
    return {
        "psnr_db": psnr(pictures, target), "psnr_mouth_db": psnr(pictures[mouth], target[mouth]),
        "psnr_eyes_db": psnr(pictures[eyes], target[eyes]), "motion_error_px": float(torch.stack(errors).mean()),
        "moves_error_px": float(torch.stack(alone).mean()),
    }  # fmt: skip


@torch.no_grad()
def calibrate(vae: ReferenceVAE, folder: Path, max_clips: int = 60) -> None:
    """Latent statistics a channel over whole clips, so that latents have zero mean and unit variance; and at every place those of
    references standing still."""
    vae.latent_mean.zero_()
    vae.latent_std.fill_(1.0)
    latents, stills = [], []
    for path in clip_paths(folder)[:max_clips]:
        clip = load_clip(path)
        references, length = vae.reference(to_picture_tensor(clip.references)), len(clip.frames) // 4 * 4
        moves = torch.from_numpy(clip.moves(slice(length), 0))
        latents.append(vae.encode(to_picture_tensor(clip.frames[:length]), references.one(0), moves))
        stills.append(vae.still_frame(references))
    stacked = torch.cat(latents)
    vae.latent_mean.copy_(stacked.mean(dim=(0, 2, 3)))
    vae.latent_std.copy_(stacked.std(dim=(0, 2, 3)))
    vae.usual_still.learn(torch.cat(stills))


@torch.no_grad()
def learn_usual(vae: ReferenceVAE, folder: Path) -> None:
    """What the features of a folder's people are, and of their mirror images."""
    seen = []
    for path in clip_paths(folder):
        pictures = to_picture_tensor(load_clip(path).references[:1]).to(vae.latent_mean.device)
        seen.append(vae.reference.features(torch.cat((pictures, pictures.flip(3)))))
    for usual, features in zip(vae.reference.of_people(), zip(*seen, strict=True), strict=True):
        usual.learn(torch.cat(features))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser, minutes=25.0, batch=8, rate=1.5e-3, batch_of="frames, two of each person")
    parser.add_argument("--checkpoint", type=Path, required=True, help="written every few minutes; resumed from when present")
    parser.add_argument("--init", type=Path, help="weights to go on from")
    parser.add_argument("--keep-reference", action="store_true", help="train on what encodes and decodes frames, not what sees portraits")
    parser.add_argument("--cast", type=Path, help="folder of the same clips played by others: latents then say what both do alike")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    begin(args.seed)
    rng = np.random.default_rng(args.seed)
    frames, held_out = Frames(args.data, cast=args.cast), Frames(args.eval, every=10)
    vae = ReferenceVAE(PRESENTER_VAE)
    if args.init:
        vae.load_state_dict(load_file(args.init))
    vae = vae.to(args.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    vae.reference.requires_grad_(not args.keep_reference)
    if args.keep_reference:
        learn_usual(vae, args.data)
    optimiser = torch.optim.Adam([p for p in vae.parameters() if p.requires_grad], lr=args.rate, betas=(0.9, 0.98))
    weight = loss_weight(256, 4.0, 3.0).to(args.device)
    training = Training("autoencoder", vae, optimiser, args.minutes, decay=0.998)
    training.resume(args.checkpoint)
    players = 2 if args.cast else 1
    while training.goes_on():
        sample = augment(frames.draw(args.batch, rng), rng).to(args.device)
        with mixed_precision(args.device):
            reference: Reference = vae.reference(sample.references.contiguous(memory_format=torch.channels_last))
        if args.keep_reference:
            reference = unseen(reference, vae, rng)
        told = torch.from_numpy(np.tile(rng.random(len(sample.moves) // players) >= UNTOLD, players)).to(sample.moves)
        moves = sample.moves * told[:, None]
        moved = reference.moved(moves)
        with mixed_precision(args.device):
            latents = vae.encoder(sample.frames, reference, moved).float()
        if args.cast and rng.random() < RECAST:
            latents = latents.roll(len(latents) // players, 0)
        # Relative to the latents' own size: with fixed noise a young encoder's small latents drown, and stay unused for good.
        amount = LATENT_NOISE * latents.detach().std() * torch.rand(len(latents), 1, 1, 1, device=args.device)
        noise = torch.randn_like(latents) * amount
        with mixed_precision(args.device):
            change = vae.decoder(latents + noise, vae.decoder.canvas(reference), moves)
        drawing = change.float().carried(moved.motion)
        mouth = F.max_pool2d(sample.inside, 5, stride=1, padding=2)
        picture = picture_loss(compose(moved.layers, drawing), sample.frames, weight * (1.0 + INSIDE_WEIGHT * mouth))
        motion = change_loss(drawing, moved.motion.total().person, told, sample)
        found = eyes_loss(reference.eyes, sample.eyes[:, 0]) + F.binary_cross_entropy_with_logits(reference.person, sample.matte[:, 0])
        if training.step(picture + motion + found):
            print(f"\nstep {training.steps} {evaluate(training.average, held_out, args.device)}", flush=True)
            training.save(args.checkpoint)
    final = training.average.cpu().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    calibrate(final, args.data)
    metrics: dict[str, float] = evaluate(final, held_out, "cpu")
    metrics |= {"steps": training.steps, "batch": args.batch, "seed": args.seed, "minutes": args.minutes, "frames": len(frames)}
    print(metrics, flush=True)
    save_part(args.out, final, {"vae": metrics}, args.init)


if __name__ == "__main__":
    main()
