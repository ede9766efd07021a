"""Train the audio encoder on synthetic speech: phones, mouth curves and voice activity together.

The heads exist for this training and for judging; the avatar uses the features under them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from scipy.io import wavfile
from torch import Tensor
from tqdm import tqdm

from model.audio import BILABIALS, PHONES, STEP, AudioEncoder
from model.training.augment import augment, make_noise, tilt, with_dynamics
from model.training.loop import Training, begin, save_part
from model.training.speech import synthesise
from model.training.visemes import MOUTH_SHAPES, aperture, mouth_curves, stressed

STEPS = 150  # 3 s a training crop
VERSIONS = 3
HELD_OUT = 900_000
_FRAME_RATE = 50.0


def make_utterance(job: tuple[Path, int]) -> None:
    """Samples int16 [VERSIONS, n], phone ids, and mouth curves of each version at 50 Hz, as one file."""
    folder, seed = job
    path = folder / f"utterance_{seed:06d}.npz"
    if path.exists():
        return
    spoken = synthesise(seed)
    steps = len(spoken.samples) // STEP
    # The voice of each version, before what augmentation does to it: how wide the mouth opens follows from that.
    voices = [spoken.samples] + [with_dynamics(spoken.samples, seed * 16 + v) for v in range(1, VERSIONS)]
    versions = np.stack([voices[0]] + [augment(voices[v], seed * 16 + v) for v in range(1, VERSIONS)])
    times = (np.arange(steps) + 0.5) / _FRAME_RATE
    starts = np.array([start for _, start, _ in spoken.phones])
    index = np.searchsorted(starts, times, side="right") - 1
    labels = np.array([PHONES.index(label) for label, _, _ in spoken.phones])[index]
    curves = mouth_curves(spoken.phones, steps, _FRAME_RATE)
    np.savez(
        path, samples=(versions[:, : steps * STEP] * 32767).astype(np.int16), phones=labels.astype(np.int64),
        mouth=np.stack([stressed(curves, voice, _FRAME_RATE) for voice in voices]).astype(np.float16),
    )  # fmt: skip


def make_data(folder: Path, count: int, workers: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(folder, seed) for seed in (*range(count), *range(HELD_OUT, HELD_OUT + 40))]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for _ in tqdm(pool.imap_unordered(make_utterance, jobs, chunksize=4), total=len(jobs), desc="speech", unit="utterance"):
            pass


Speech = tuple[np.ndarray, np.ndarray, np.ndarray]


def load_speech(folder: Path, held_out: bool) -> list[Speech]:
    loaded = []
    for path in sorted(folder.glob("utterance_*.npz")):
        if (int(path.stem.split("_")[1]) >= HELD_OUT) == held_out:
            with np.load(path) as data:
                loaded.append((data["samples"], data["phones"], data["mouth"].astype(np.float32)))
    return loaded


def sample_crops(speech: list[Speech], size: int, encoder: AudioEncoder, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Crops [B, context + STEPS*320 + 1280], phone ids [B, STEPS], mouth [B, STEPS, shapes]; one in ten is noise without speech."""
    past, ahead = encoder.context_samples, encoder.lookahead_samples
    sounds, labels, mouths = [], [], []
    for pick in rng.integers(len(speech), size=size):
        samples, phones, mouth = speech[pick]
        version = rng.integers(len(samples))
        sound = samples[version].astype(np.float32) / 32768.0
        start = int(rng.integers(0, max(len(phones) - STEPS, 0) + 1))
        span = slice(start, start + STEPS)
        lacking = STEPS - len(phones[span])
        first = start * STEP - past
        cut = np.pad(sound, (max(-first, 0), past + ahead + STEPS * STEP))[max(first, 0) :][: past + STEPS * STEP + ahead]
        phones_cut, mouth_cut = np.pad(phones[span], (0, lacking)), np.pad(mouth[version, span], ((0, lacking), (0, 0)))
        cut = _vary(cut, rng)
        if rng.random() < 0.1:
            cut = (make_noise(len(cut), rng) * 10 ** (rng.uniform(-55, -18) / 20)).astype(np.float32)
            phones_cut, mouth_cut = np.zeros_like(phones_cut), np.zeros_like(mouth_cut)
        sounds.append(cut)
        labels.append(phones_cut)
        mouths.append(mouth_cut)
    return torch.from_numpy(np.stack(sounds)), torch.from_numpy(np.stack(labels)), torch.from_numpy(np.stack(mouths))


def _vary(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What can be varied cheaply at every use: gain, spectral balance, background."""
    out = tilt(sound, rng) if rng.random() < 0.4 else sound
    if rng.random() < 0.4:
        power = float(np.sqrt(np.mean(out**2))) + 1e-5
        out = out + make_noise(len(out), rng) * power * 10 ** (-rng.uniform(8, 35) / 20)
    return (out * 10 ** (rng.uniform(-22, 4) / 20)).clip(-1, 1).astype(np.float32)


def loss_of(heads: dict[str, Tensor], labels: Tensor, mouth: Tensor) -> Tensor:
    phone = F.cross_entropy(heads["phones"].flatten(0, 1), labels.flatten(), label_smoothing=0.05)
    voiced = F.binary_cross_entropy_with_logits(heads["voiced"], (labels != 0).float())
    # Closures are short and decisive: frames with closed lips inside speech weigh more.
    closed = torch.isin(labels, torch.tensor([PHONES.index(p) for p in BILABIALS]))
    weight = 1.0 + 5.0 * closed[..., None]
    error = (heads["mouth"] - mouth).abs()
    jaw = error[..., :1]
    return phone * 0.3 + voiced * 0.2 + 8.0 * (error * weight).mean() + 4.0 * (jaw * weight).mean()


@torch.inference_mode()
def predict_mouth(encoder: AudioEncoder, sound: np.ndarray) -> np.ndarray:
    """Mouth curves at 50 Hz for a whole recording, float32 [-1, 1] at 16 kHz."""
    steps = len(sound) // STEP
    padded = np.pad(sound[: steps * STEP], (encoder.context_samples, encoder.lookahead_samples)).astype(np.float32)
    return encoder.heads(encoder(torch.from_numpy(padded)[None]))["mouth"][0].clamp(min=0).numpy()


def evaluate(encoder: AudioEncoder, speech: list[Speech]) -> dict[str, float]:
    """On clean and augmented held-out sentences: correlation of the aperture with the truth, share of closures hit."""
    correlations, hits, total = [], 0, 0
    for samples, phones, mouth in speech:
        for version, curves in zip(samples, mouth, strict=True):
            predicted = aperture(predict_mouth(encoder, version.astype(np.float32) / 32768.0))
            truth = aperture(curves)[: len(predicted)]
            correlations.append(np.corrcoef(predicted, truth)[0, 1])
            shut = np.isin(phones[: len(predicted)], [PHONES.index(p) for p in BILABIALS])
            edges = np.flatnonzero(np.diff(np.pad(shut.astype(int), 1)))
            limit = 0.2 * np.percentile(truth, 95)
            for start, stop in zip(edges[::2], edges[1::2], strict=True):
                hits += bool(predicted[max(start - 1, 0) : stop + 1].min() < limit)
                total += 1
    return {"aperture_correlation": float(np.mean(correlations)), "closures_hit": hits / max(total, 1)}


def evaluate_real(encoder: AudioEncoder, folder: Path) -> dict[str, float]:
    """On real recordings with phone labels: bilabials closed, open vowels open, relative to the 95th percentile of opening."""
    closed, open_, silent = [], [], []
    for path in sorted(folder.glob("*.phones.json")):
        rate, samples = wavfile.read(path.with_name(path.name.replace(".phones.json", ".wav")))
        assert rate == 16_000, path
        opening = aperture(predict_mouth(encoder, samples.astype(np.float32) / 32768.0))
        top = np.percentile(opening, 95)
        for label, start, end in json.loads(path.read_text())["phones"]:
            span = opening[int(start * 50) : max(int(end * 50), int(start * 50) + 1)]
            if label in ("P", "B", "M"):
                closed.append(span.min() < 0.15 * top)
            elif label in ("AA", "AE", "AO", "AW", "AY"):
                open_.append(span.max() > 0.45 * top)
            elif label == "SIL":
                silent.append(float(np.median(span) / top))
    return {"real_closed": float(np.mean(closed)), "real_open": float(np.mean(open_)), "real_silence": float(np.mean(silent))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of utterances; filled when it has too few")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--real", type=Path, help="folder of real recordings with .phones.json, for judging only")
    parser.add_argument("--utterances", type=int, default=1500)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--init", type=Path, help="go on from these weights")
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    make_data(args.data, args.utterances, args.workers)
    speech, held_out = load_speech(args.data, False), load_speech(args.data, True)
    begin(args.seed)
    rng = np.random.default_rng(args.seed)
    encoder = AudioEncoder()
    if args.init:
        encoder.load_state_dict(load_file(args.init))
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=args.rate, weight_decay=0.01)
    training = Training("audio encoder", encoder, optimiser, args.minutes, decay=0.998)
    assert len(MOUTH_SHAPES) == encoder.mouth.out_features and len(PHONES) == encoder.phones.out_features

    def save() -> dict[str, float]:
        metrics = evaluate(training.average, held_out) | (evaluate_real(training.average, args.real) if args.real else {})
        metrics |= {"steps": training.steps, "batch": args.batch, "seed": args.seed, "utterances": len(speech), "minutes": training.minutes}
        save_part(args.out, training.average, {"audio": metrics})
        return metrics

    while training.goes_on():
        sounds, labels, mouth = sample_crops(speech, args.batch, encoder, rng)
        if training.step(loss_of(encoder.heads(encoder(sounds)), labels, mouth)):
            print(f"\nstep {training.steps} {save()}", flush=True)
    print(save())


if __name__ == "__main__":
    main()
