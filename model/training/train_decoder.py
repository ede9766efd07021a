"""Train the decoder alone, harder: encoder and transformer stay as they are, so nothing has to be trained again.

Most steps look at the mouth or the eyes only, which costs a third of a whole frame. Latents are the encoder's, with noise, and, given
a transformer, half the time what it really generates (cf. EchoTorrent, arXiv 2602.13669): a generator's latents are smoother than
an encoder's, and a decoder that only saw the latter shows that as soft lips.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.audio import AudioEncoder
from model.config import PRESENTER_VAE
from model.motion import BLINK, fetch
from model.training.clips import load_players
from model.training.loop import Training, add_arguments, begin, mixed_precision, psnr, save_part, to_picture_tensor
from model.training.sequences import SequencePass, cut, load_sequences, other_reference, to_batch
from model.training.train_student import rolled_out
from model.training.train_teacher import LENGTH, VOICES, build, load_vae
from model.training.train_vae import (
    BLINKING,
    COVER_SHARE,
    EYES_BOX,
    INSIDE_WEIGHT,
    LATENT_NOISE,
    MOUTH_BOX,
    loss_weight,
    picture_loss,
    unseen,
)
from model.vae import WHOLE, FrameDecoder, Reference, ReferenceVAE, Region, compose

# Where to look, with two latent pixels around it that are computed but not judged, and how often.
REGIONS = ((0.5, Region(slice(7, 14), slice(4, 12))), (0.15, Region(slice(3, 10), slice(2, 14))), (0.35, WHOLE))
MARGIN = 24  # pixels
TEETH_SHARE = 3.0
PATCH = PRESENTER_VAE.patch
UNTOLD_SHARE = 0.15  # what latents alone say is what a video's lips and a way between two pictures begin with


@dataclass(frozen=True, slots=True)
class Sample:
    """latents [F, c, h, w] and moves [F, NUM_CONTROLS] a frame, the one picture they are told from [1, 3, H, W], true frames
    [F, 3, H, W], inside [F, 1, H, W]."""

    latents: Tensor
    moves: Tensor
    picture: Tensor
    truth: Tensor
    inside: Tensor


class Samples:
    """Clips with their latents: encoded, with moves told or untold, and generated when there is a transformer. Where there is a cast, a
    folder of the same clips played by others, half of them are drawn from these latents."""

    def __init__(self, folder: Path, cast: Path | None, vae: ReferenceVAE, encoder: AudioEncoder, student: SequencePass | None) -> None:
        self._players = load_players(folder, cast)
        self._clips = self._players[0]
        self._encoded = load_sequences(folder, vae, encoder, mirrored=False, versions=VOICES)
        self._blinking = np.flatnonzero([(clip.controls[: len(clip.frames) // 4 * 4, BLINK] > 0).any() for clip in self._clips])
        self._vae, self._student = vae, student
        generated = 0.0 if student is None else 0.5
        self.shares = {"encoded": 1.0 - generated - UNTOLD_SHARE, "untold": UNTOLD_SHARE, "generated": generated}

    @torch.no_grad()
    def take(self, size: int, kind: str, rng: np.random.Generator, generator: torch.Generator, device: str) -> Sample:
        blinks = len(self._blinking) > 0 and rng.random() < BLINKING
        index = int(rng.choice(self._blinking)) if blinks else int(rng.integers(len(self._clips)))
        clip, encoded = self._players[int(rng.integers(len(self._players)))][index], self._encoded[index]
        which = int(rng.random() < 0.25)
        starts = encoded.latents.shape[1] - LENGTH
        if blinks:  # a stretch around a blink, and of its frames the blinking ones first
            closing = int(rng.choice(np.flatnonzero(clip.controls[: 4 * encoded.latents.shape[1], BLINK] > 0)))
            start = int(np.clip(closing // 4 - rng.integers(LENGTH), 0, starts))
        else:
            start = int(rng.integers(0, starts + 1))
        batch = to_batch([cut(encoded, start, LENGTH, which, "talk", rng)], device)
        if kind == "generated":
            assert self._student is not None
            stacked = rolled_out(self._student, batch, generator).latents[0]
        else:
            noise = torch.randn(batch.latents[0].shape, generator=generator).to(device)
            stacked = batch.latents[0] + noise * LATENT_NOISE * float(rng.random())
        latents = self._vae.unstack(stacked)
        shown = np.arange(start * 4, (start + LENGTH) * 4)
        likely = 1.0 + 20.0 * blinks * (clip.controls[shown, BLINK] > 0)
        picks = torch.from_numpy(rng.choice(len(latents), size, replace=False, p=likely / likely.sum()))
        frames = shown[picks.numpy()]
        picture = to_picture_tensor(clip.references[other_reference(clip, False) if which else 0])[None]
        truth = to_picture_tensor(clip.frames[frames])
        inside = torch.from_numpy(np.unpackbits(clip.inside[frames], axis=1)).float().view(size, 1, *truth.shape[2:])
        sample = Sample(*(part.to(device) for part in (latents[picks], encoded.moves[which, frames], picture, truth, inside)))
        return self._untold(sample) if kind == "untold" else sample

    def _untold(self, sample: Sample) -> Sample:
        """The same frames, all of whose movement is in the latents."""
        still, reference = torch.zeros_like(sample.moves), self._vae.reference(sample.picture)
        return replace(sample, moves=still, latents=self._vae.encoder(sample.truth, reference, reference.moved(still)))


def decoder_loss(decoder: FrameDecoder, reference: Reference, sample: Sample, region: Region) -> Tensor:
    """Picture and cover as in the autoencoder's training, within a region."""
    moved, truth, inside = reference.moved(sample.moves), sample.truth, sample.inside
    with mixed_precision(truth.device.type):
        change = decoder(sample.latents, decoder.canvas(reference), sample.moves, region)
    drawing = change.float().carried(moved.motion)
    judged = torch.zeros_like(inside)
    region.of(judged, PATCH)[..., MARGIN:-MARGIN, MARGIN:-MARGIN] = 1.0
    judged = (fetch(judged, moved.motion.head) > 0.99).float() if region != WHOLE else torch.ones_like(inside)
    mouth = F.max_pool2d(inside, 5, stride=1, padding=2)
    weight = loss_weight(256, 6.0, 3.0).to(truth) * judged
    shown = compose(moved.layers, drawing)
    picture = picture_loss(shown, truth, weight * (1.0 + INSIDE_WEIGHT * mouth))
    # Teeth are a bright minority inside a mouth: an absolute error settles for the dark majority, a squared one does not.
    picture = picture + TEETH_SHARE * ((shown - truth).square() * inside * weight).mean()
    weight = loss_weight(256, 20.0, 1.0).to(truth) * judged
    return picture + COVER_SHARE * F.binary_cross_entropy_with_logits(drawing.cover, inside, weight=weight)


@torch.no_grad()
def evaluate(vae: ReferenceVAE, data: Samples, device: str) -> dict[str, float]:
    """PSNR of frames of held-out people against the true ones, from encoded and from generated latents."""
    found: dict[str, float] = {}
    for name in (name for name, share in data.shares.items() if share):
        rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
        pairs = []
        for _ in range(16):
            sample = data.take(6, name, rng, generator, device)
            pairs.append((vae.decode_frames(sample.latents, vae.reference(sample.picture), sample.moves).cpu(), sample.truth.cpu()))
        pictures, target = (torch.cat(column) for column in zip(*pairs, strict=True))
        mouth, eyes = (..., *MOUTH_BOX), (..., *EYES_BOX)
        found[f"{name}_psnr_db"] = psnr(pictures, target)
        found[f"{name}_psnr_mouth_db"] = psnr(pictures[mouth], target[mouth])
        found[f"{name}_psnr_eyes_db"] = psnr(pictures[eyes], target[eyes])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser, minutes=15.0, batch=8, rate=4e-4, batch_of="frames, of two people")
    parser.add_argument("--cast", type=Path, help="folder of the same clips played by others, to be drawn from the same latents")
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--audio", type=Path, required=True)
    parser.add_argument("--student", type=Path, help="a transformer whose latents are decoded half the time")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    begin(args.seed)
    rng, generator = np.random.default_rng(args.seed), torch.Generator().manual_seed(args.seed)
    vae, student = load_vae(args.vae).to(args.device), None
    if args.student:
        student = build()
        student.load_state_dict(load_file(args.student))
        student = student.to(args.device).eval().requires_grad_(False)
    encoder = AudioEncoder.load(args.audio)
    train, held_out = Samples(args.data, args.cast, vae, encoder, student), Samples(args.eval, None, vae, encoder, student)
    print("before:", evaluate(vae, held_out, args.device), flush=True)
    vae.decoder.requires_grad_(True)
    optimiser = torch.optim.Adam(vae.decoder.parameters(), lr=args.rate, betas=(0.9, 0.98))
    training = Training("decoder", vae, optimiser, args.minutes, decay=0.995)
    while training.goes_on():
        kind = str(rng.choice(list(train.shares), p=list(train.shares.values())))
        parts = [train.take(args.batch // 2, kind, rng, generator, args.device) for _ in range(2)]
        sample = Sample(*(torch.cat([getattr(part, name) for part in parts]) for name in Sample.__dataclass_fields__))
        with torch.no_grad(), mixed_precision(args.device):
            reference = unseen(vae.reference(sample.picture), vae, rng)
        region = REGIONS[int(rng.choice(len(REGIONS), p=[share for share, _ in REGIONS]))][1]
        if training.step(decoder_loss(vae.decoder, reference, sample, region)):
            print(f"\nstep {training.steps} {evaluate(training.average, held_out, args.device)}", flush=True)
            save_file(training.average.state_dict(), args.out)
    final = training.average.cpu()
    metrics: dict[str, float] = evaluate(final, held_out, "cpu")
    metrics |= {"steps": training.steps, "batch": args.batch, "seed": args.seed, "minutes": args.minutes}
    print(metrics, flush=True)
    save_part(args.out, final, {"decoder": metrics}, args.vae)


if __name__ == "__main__":
    main()
