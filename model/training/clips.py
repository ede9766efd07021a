"""Training clips: a synthetic person says a synthesised utterance; frames, their exact motion, controls and sound kept together.

A clip is one uncompressed `.npz`. Run as a program this renders many, resumable, one process a worker.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from model.controls import CONTROL_NAMES, CONTROL_UNITS, ControllerState, neutral_controls, next_controls
from model.errors import ConfigError
from model.geometry import FPS, FRAME_SAMPLES_16K
from model.training.augment import with_dynamics
from model.training.head import Head
from model.training.people import FramePose, Person
from model.training.renderer import Renderer
from model.training.speech import Utterance, synthesise
from model.training.teeth import average_person, place_of_teeth, seen_teeth
from model.training.visemes import MOUTH_SHAPES, mouth_curves, stressed

_COLUMN = {name: i for i, name in enumerate(CONTROL_NAMES)}


@dataclass(frozen=True, slots=True)
class Clip:
    """frames uint8 [F, H, W, 3]; references uint8 [R, H, W, 3] (other moments of the same person, the first neutral);
    source uint8 [F], the reference that a frame's motion is told from: motion float16 [F, H/2, W/2, 2], displacements in pixels;
    inside bits uint8 [F, H*W/8], pixels that show the inside of the mouth; eyes bits uint8 [R, H*W/8], those of the references that show
    an eyeball; matte uint8 [R, H, W], how much of each is the person's, and outline uint8 [F, H/2, W/2], of each frame; teeth float32
    [R, NUM_PLACE_TERMS, 2], where in each reference the upper teeth are (`model.mouth`); controls float32 [F, NUM_CONTROLS], those of the
    references [R, NUM_CONTROLS]; mouth float32 [F, num shapes]; samples int16 16 kHz, at least F * 640."""

    frames: np.ndarray
    references: np.ndarray
    source: np.ndarray
    motion: np.ndarray
    inside: np.ndarray
    eyes: np.ndarray
    matte: np.ndarray
    outline: np.ndarray
    teeth: np.ndarray
    controls: np.ndarray
    reference_controls: np.ndarray
    mouth: np.ndarray
    samples: np.ndarray
    person_seed: int

    def moves(self, frames: np.ndarray | slice, which: int) -> np.ndarray:
        """How far the controls of frames are from those of a reference, float32 [n, NUM_CONTROLS]."""
        return self.controls[frames] - self.reference_controls[which]


def pose_of(head: Head, controls: np.ndarray, mouth: np.ndarray) -> FramePose:
    """One frame's controls [NUM_CONTROLS] (unitless) and mouth curves as a renderer pose."""
    value = controls * CONTROL_UNITS
    weights = {name: float(w) for name, w in zip(MOUTH_SHAPES, mouth, strict=True)}
    smile = float(value[_COLUMN["smile"]])
    brow = float(value[_COLUMN["brow"]])
    added = {
        "eyeBlink_L": float(value[_COLUMN["blink"]]),
        "eyeBlink_R": float(value[_COLUMN["blink"]]),
        "mouthSmile_L": 0.6 * smile,
        "mouthSmile_R": 0.6 * smile,
        "cheekSquint_L": 0.3 * smile,
        "cheekSquint_R": 0.3 * smile,
        "browInnerUp_L": max(brow, 0.0),
        "browInnerUp_R": max(brow, 0.0),
        "browOuterUp_L": 0.6 * max(brow, 0.0),
        "browOuterUp_R": 0.6 * max(brow, 0.0),
        "browDown_L": max(-brow, 0.0),
        "browDown_R": max(-brow, 0.0),
    }
    for name, weight in added.items():
        weights[name] = weights.get(name, 0.0) + weight
    expression = np.zeros(len(head.expression_names), dtype=np.float32)
    for i, name in enumerate(head.expression_names):
        expression[i] = min(weights.get(name, 0.0), 1.0)
    yaw, pitch, roll, x, y = (float(v) for v in value[:5])
    gaze_x, gaze_y = float(value[_COLUMN["gaze_x"]]), float(value[_COLUMN["gaze_y"]])
    return FramePose(expression, yaw=yaw, pitch=pitch, roll=roll, x=x, y=y, scale=1.0, gaze_x=gaze_x, gaze_y=gaze_y)


def sample_controls(rng: np.random.Generator, num_frames: int, width: float | None = None) -> np.ndarray:
    """Head motion wider than the live controller's by a factor, drawn unless told, so that serving stays inside the training range."""
    seed = int(rng.integers(1 << 31))
    state = ControllerState(seed, frame=int(rng.integers(100_000)))
    activity = str(rng.choice(["idle", "listening", "speaking", "speaking"]))
    controls, _ = next_controls(state, num_frames, activity)
    drawn = rng.uniform(0.6, 1.9)
    controls[:, :5] *= drawn if width is None else width
    controls[:, _COLUMN["smile"]] += rng.uniform(-0.15, 0.5)
    controls[:, _COLUMN["brow"]] *= rng.uniform(0.5, 2.5)
    controls[:, _COLUMN["smile"]] = controls[:, _COLUMN["smile"]].clip(0.0, 1.0)
    return controls


def make_clip(head: Head, renderer: Renderer, seed: int, num_frames: int, width: float | None = None, cast: int = 0) -> Clip:
    """The clip of a seed, with head motion of that width, played by the person of the seed that is `cast` further. Sound starts at a random
    moment of the utterance, so that clips also begin inside words."""
    rng = np.random.default_rng(seed)
    person = Person.sample(seed + cast)
    utterance = synthesise(seed)
    voice = with_dynamics(utterance.samples, seed)
    total = int(len(voice) / FRAME_SAMPLES_16K)
    curves = stressed(mouth_curves(utterance.phones, max(total, num_frames), FPS), voice, FPS)
    first = _first_frame(rng, total, num_frames)
    controls = sample_controls(rng, num_frames, width)
    mouth = curves[first : first + num_frames]
    poses = [pose_of(head, c, m) for c, m in zip(controls, mouth, strict=True)]
    frames, mattes = (np.stack(drawn) for drawn in zip(*(renderer.layered(person, pose) for pose in poses), strict=True))
    neutral = neutral_controls()
    closed = np.zeros(len(MOUTH_SHAPES), dtype=np.float32)
    other = sample_controls(rng, 1, width)[0]
    other[_COLUMN["blink"]] = 0.0
    talking = curves[int(rng.integers(len(curves)))]
    reference_controls = np.stack((neutral, other, other * 0.5))
    references = [pose_of(head, c, m) for c, m in zip(reference_controls, (closed, closed, talking), strict=True)]
    pictures, matte = (np.stack(drawn) for drawn in zip(*(renderer.layered(person, pose) for pose in references), strict=True))
    source = rng.choice(len(references), num_frames, p=(0.6, 0.2, 0.2)).astype(np.uint8)
    traced = [renderer.motion(person, pose, references[which]) for pose, which in zip(poses, source, strict=True)]
    motion = np.stack([halved_motion(*found) for found in traced])
    inside = np.stack([np.packbits(found[1]) for found in traced])
    eyes = np.stack([np.packbits(renderer.eyes(person, pose)) for pose in references])
    still = pose_of(head, neutral, closed)
    average = seen_teeth(head, average_person(), still)
    teeth = np.stack([place_of_teeth(seen_teeth(head, person, pose), average) for pose in references])
    # A second of sound before and after the clip where there is any: the audio encoder needs its past and its look-ahead.
    padded = np.pad(voice, (16_000, 16_000 + num_frames * FRAME_SAMPLES_16K))
    start = first * FRAME_SAMPLES_16K
    samples = padded[start : start + 32_000 + num_frames * FRAME_SAMPLES_16K]
    sound = (samples * 32767).clip(-32768, 32767).astype(np.int16)
    told = (controls, reference_controls, mouth, sound, seed)
    return Clip(frames, pictures, source, motion, inside, eyes, matte, halved(mattes), teeth, *told)


def _first_frame(rng: np.random.Generator, total: int, num_frames: int) -> int:
    """Of an utterance of `total` frames; the first that is drawn from a clip's generator."""
    return int(rng.integers(0, max(total - num_frames, 0) + 1))


def utterance_of(seed: int, num_frames: int) -> tuple[Utterance, float]:
    """What is said in the clip of a seed, and when in it the clip starts, in seconds."""
    utterance = synthesise(seed)
    first = _first_frame(np.random.default_rng(seed), int(len(utterance.samples) / FRAME_SAMPLES_16K), num_frames)
    return utterance, first / FPS


def halved_motion(motion: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Displacements float32 [H, W, 2] averaged over 2x2 pixels, those inside the mouth left out; float16 [H/2, W/2, 2]."""
    blocks = (motion.shape[0] // 2, 2, motion.shape[1] // 2, 2)
    outside = (~inside).astype(np.float32).reshape(*blocks, 1)
    total = (motion.reshape(*blocks, 2) * outside).sum(axis=(1, 3))
    return (total / np.maximum(outside.sum(axis=(1, 3)), 1.0)).astype(np.float16)


def halved(planes: np.ndarray) -> np.ndarray:
    """uint8 [n, H, W] averaged over 2x2 pixels, uint8 [n, H/2, W/2]."""
    count, height, width = planes.shape
    return planes.reshape(count, height // 2, 2, width // 2, 2).mean(axis=(2, 4), dtype=np.float32).round().astype(np.uint8)


def save_clip(path: Path, clip: Clip) -> None:
    temporary = path.with_suffix(".tmp.npz")
    arrays = {name: np.asarray(getattr(clip, name)) for name in Clip.__dataclass_fields__}
    np.savez(temporary, **arrays)  # type: ignore[arg-type]
    temporary.rename(path)


def load_clip(path: Path) -> Clip:
    with np.load(path) as data:
        missing = [name for name in Clip.__dataclass_fields__ if name not in data.files]
        if missing:
            what = f"{path} has no {', '.join(missing)}"
            raise ConfigError("clip_outdated", what, "It is of another version: render it again with this one's `livemimic train clips`.")
        arrays = {name: data[name] for name in Clip.__dataclass_fields__ if name != "person_seed"}
        return Clip(**arrays, person_seed=int(data["person_seed"]))


def clip_paths(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("clip_*.npz") if not p.name.endswith(".tmp.npz"))


def load_players(folder: Path, cast: Path | None) -> list[list[Clip]]:
    """All clips of a folder, and, where there is a cast, the same clips in the same order, played by others. Raises ConfigError where the
    cast lacks one."""
    paths = clip_paths(folder)
    folders = [folder] if cast is None else [folder, cast]
    missing = [path.name for path in paths if cast and not (cast / path.name).exists()]
    if missing:
        what = f"{cast} has no {', '.join(missing[:3])} ({len(missing)} of {len(paths)} clips are missing)"
        raise ConfigError("cast_incomplete", what, "Render them: livemimic train clips --cast N, all else as the clips themselves were.")
    return [[load_clip(where / path.name) for path in tqdm(paths, desc=f"reading {where.name}", unit="clip")] for where in folders]


def _work(
    head_path: Path, out: Path, seeds: Sequence[int], num_frames: int, width: float | None, cast: int,
    done: multiprocessing.SimpleQueue[int],
) -> None:  # fmt: skip
    head = Head.load(head_path)
    renderer = Renderer(head, size=256)
    for seed in seeds:
        path = out / f"clip_{seed:06d}.npz"
        if not path.exists():
            save_clip(path, make_clip(head, renderer, seed, num_frames, width, cast))
        done.put(seed)


def main() -> None:
    example = "example: livemimic train clips --head data/head.npz --out data/clips --clips 420 --workers 2"
    parser = argparse.ArgumentParser(description=__doc__, epilog=example)
    parser.add_argument("--head", type=Path, required=True, help="packed head model (see docs/training.md)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the clips")
    parser.add_argument("--clips", type=int, default=300)
    parser.add_argument("--first-seed", type=int, default=0, help="seeds from 900000 on are kept for evaluation")
    parser.add_argument("--frames", type=int, default=32, help="video frames a clip, a multiple of 4")
    parser.add_argument("--width", type=float, help="of head motion: 1 is what is served; drawn from 0.6 to 1.9 for each clip unless told")
    parser.add_argument("--cast", type=int, default=0, metavar="N", help="have them played by the people of seeds N further, else alike")
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    done: multiprocessing.SimpleQueue[int] = context.SimpleQueue()
    seeds = range(args.first_seed, args.first_seed + args.clips)
    for worker in range(args.workers):
        # Interleaved seeds: stopping early leaves a contiguous set.
        job = (args.head, args.out, seeds[worker :: args.workers], args.frames, args.width, args.cast, done)
        context.Process(target=_work, args=job, daemon=True).start()
    for _ in tqdm(seeds, desc="clips", unit="clip"):
        done.get()


if __name__ == "__main__":
    main()
