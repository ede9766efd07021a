"""Measure a preset on people, voices and sentences it never saw, through the window, sampler and decoder that `render` and `serve` use.

Prints a table: the true render and the autoencoder are what can be reached, a jaw that follows loudness alone is the naive floor.
docs/training.md says how to read it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from model.checkpoints import PRESENTER_FILE, load_presenter
from model.config import PRESENTER_WINDOW
from model.devices import choose_device, keep_freed_memory, working_dtype
from model.geometry import FPS
from model.pipeline import AvatarPipeline
from model.training.clips import Clip
from model.training.evaluation import held_out, plots, without_truth
from model.training.evaluation.report import AUTOENCODER, JAW, NETWORK, TRUTH, finite, table, verdicts
from model.training.evaluation.videos import LEAD, autoencoder_video, held_out_clips, network_video, on_clip, to_rgb
from model.vae import ReferenceVAE

NUM_MOMENTS = 8
Picked = tuple[Clip, list[int], dict[str, np.ndarray]]  # a clip, the moments to show, and those frames of its videos


def main() -> None:
    example = (
        "example: livemimic train evaluate --eval data/long --recordings speech/ --json runs/evaluation.json --pictures runs/pictures\n"
        "An hour of drift: livemimic train evaluate --eval data/long --clips 1 --minutes 60"
    )
    parser = argparse.ArgumentParser(description=__doc__, epilog=example, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eval", type=Path, required=True, help="folder of clips of other people, seeds from 900000 on, long ones")
    parser.add_argument("--clips", type=int, default=6, help="how many of them, from the first (default 6)")
    parser.add_argument("--weights", type=Path, default=PRESENTER_FILE, help="what `livemimic train bundle` wrote (default: the embedded)")
    parser.add_argument("--recordings", type=Path, help="folder of real speech, *.wav, some with *.phones.json beside them")
    parser.add_argument("--presenters", type=int, default=2, help="how many built-in ones say each recording (default 2)")
    parser.add_argument("--photographs", type=Path, help="folder of pictures of people who were not rendered, to say the first clip")
    parser.add_argument("--minutes", type=float, default=1.0, help="length of the long run, for drift; 0 = none (default 1)")
    parser.add_argument("--json", type=Path, help="all figures, for `livemimic train bundle --evaluation`")
    parser.add_argument("--pictures", type=Path, help="folder for contact sheets and lip curves, PNG")
    parser.add_argument("--sheets", type=int, default=1, help="how many clips all built-in presenters say for them (default 1)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--seed", type=int, default=0)
    evaluate(parser.parse_args())


def evaluate(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    keep_freed_memory()
    device = choose_device(args.device)
    parts = load_presenter(args.weights)
    clips = held_out_clips(args.eval, args.clips, AvatarPipeline.geometry.chunk_frames)
    pipeline = AvatarPipeline(parts, PRESENTER_WINDOW, device, working_dtype(device))
    judged = []
    picked: list[Picked] = []
    for clip in tqdm(clips, desc="held-out clips", unit="clip"):
        videos = _videos(pipeline, parts.vae, clip, args.seed)
        judged.append(held_out.judge(clip, videos))
        chosen = plots.moments(clip, NUM_MOMENTS)
        picked.append((clip, chosen, {name: frames[chosen] for name, frames in videos.items()}))
    figures, seams = held_out.figures(judged, pipeline.geometry.chunk_frames)
    report: dict[str, Any] = {
        "weights_sha256": hashlib.sha256(args.weights.read_bytes()).hexdigest(), "seed": args.seed, "torch": torch.__version__,
        "people": [clip.person_seed for clip in clips], "frames": sum(len(clip.frames) for clip in clips),
        "clips": {clip.seed: {name: held_out.lip_figures(clip, name) for name in figures} for clip in judged},
        "seams": {name: [ratio.low, ratio.high] for name, ratio in seams.items()},
    }  # fmt: skip
    if args.recordings:
        report["recordings"] = without_truth.recordings(pipeline, args.recordings, args.presenters, args.seed)
        figures[NETWORK] |= without_truth.recording_figures(report["recordings"])
    if args.photographs:
        report["photographs"] = without_truth.photographs(pipeline, args.photographs, clips[0], args.seed)
        figures[NETWORK] |= without_truth.photograph_figures(report["photographs"])
    if args.minutes:
        sound = np.concatenate([clip.samples[LEAD:-LEAD] for clip in clips])
        report["long_run"] = without_truth.long_run(pipeline, sound, args.minutes, args.seed)
        figures[NETWORK] |= without_truth.long_run_figures(report["long_run"])
    print(table(figures))
    if args.json:
        args.json.write_text(json.dumps(finite({"figures": figures, "verdicts": verdicts(figures)} | report), indent=1) + "\n")
    if args.pictures:
        args.pictures.mkdir(parents=True, exist_ok=True)
        _draw(args.pictures, picked, judged)
        _draw_presenters(args.pictures, pipeline, picked[: args.sheets], args.seed)


def _videos(pipeline: AvatarPipeline, vae: ReferenceVAE, clip: Clip, seed: int) -> dict[str, np.ndarray]:
    return {TRUTH: clip.frames, AUTOENCODER: autoencoder_video(vae, clip), NETWORK: network_video(pipeline, clip, seed)}


def _draw(folder: Path, picked: list[Picked], judged: list[held_out.Judged]) -> None:
    """One sheet of the held-out people, one of their mouths enlarged, and the curves."""
    rows = [(f"{clip.person_seed}\n{name}", frames) for clip, _, videos in picked for name, frames in videos.items()]
    columns = [f"moment {number + 1}" for number in range(NUM_MOMENTS)]
    plots.sheet(rows, columns).save(folder / "held_out.png")
    plots.sheet([(label, plots.mouths(frames)) for label, frames in rows], columns).save(folder / "held_out_mouths.png")
    panels = []
    for clip in judged:
        scale = np.percentile(clip.seen[TRUTH].opening, 95)
        curves = {name: curve / (np.percentile(curve, 95) if name == JAW else scale) for name, curve in held_out.openings(clip).items()}
        panels.append((f"{clip.seed}", curves, clip.closures))
    plots.lip_curves(panels).save(folder / "lips.png")


def _draw_presenters(folder: Path, pipeline: AvatarPipeline, picked: list[Picked], seed: int) -> None:
    """One sheet a clip: every built-in presenter in it."""
    presenters = without_truth.portraits()
    for clip, chosen, _ in tqdm(picked, desc="presenters", unit="clip"):
        kept = _at(on_clip(pipeline, list(presenters.values()), clip, seed), chosen)
        rows = [(name, to_rgb(frames)) for name, frames in zip(presenters, kept, strict=True)]
        sheet = plots.sheet(rows, [f"{frame / FPS:.2f} s" for frame in chosen])
        sheet.save(folder / f"presenters_{clip.person_seed}.png")


def _at(chunks: Iterator[np.ndarray], chosen: list[int]) -> np.ndarray:
    """The chosen frames [N, chosen, ...] of chunks [N, chunk_frames, ...]."""
    kept: list[np.ndarray] = []
    first = 0
    for chunk in chunks:
        kept += [chunk[:, frame - first] for frame in chosen if first <= frame < first + chunk.shape[1]]
        first += chunk.shape[1]
    return np.stack(kept, axis=1)
