"""Where there is no truth: recordings of real people, and long runs, which must not drift."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from model.errors import ConfigError, PortraitError
from model.geometry import FPS, MODEL_RATE
from model.pipeline import AvatarPipeline
from model.portraits import builtin_portraits, prepare_portrait
from model.training.clips import Clip
from model.training.evaluation.lips import articulation, correlation_and_lag, filled, follows_sound, loudness
from model.training.evaluation.pictures import NUM_BINS, drift, sharpness
from model.training.evaluation.tracker import at_mean_pose, head_motion, mean_shape, shape_distance, track
from model.training.evaluation.videos import on_clip, on_sound, to_rgb

PICTURES = (".jpg", ".jpeg", ".png", ".webp")
REST_S = 2  # silence after a recording, to see the lips at rest
WATCH_EVERY = 5  # frames of a long run, to look at the face
MIN_MINUTES = 0.2  # bins of a second


def portraits(count: int | None = None) -> dict[str, np.ndarray]:
    """The first built-in presenters as pictures."""
    return {name: prepare_portrait(path.read_bytes()) for name, path in list(builtin_portraits().items())[:count]}


def read_wav(path: Path) -> np.ndarray:
    """int16 at 16 kHz, the mean of the channels. Raises ConfigError naming the file."""
    from scipy.io import wavfile
    from scipy.signal import resample_poly

    try:
        rate, samples = wavfile.read(path)
    except ValueError as error:
        raise ConfigError("not_a_wav", f"{path}: {error}", "Recordings must be WAV files.") from error
    if samples.dtype != np.int16:
        raise ConfigError("bad_wav", f"{path} holds {samples.dtype} samples", "16-bit WAV is needed.")
    mono = samples.astype(np.float64) if samples.ndim == 1 else samples.mean(axis=1)
    return resample_poly(mono, MODEL_RATE, rate).round().clip(-32768, 32767).astype(np.int16)


def recordings(pipeline: AvatarPipeline, folder: Path, num_presenters: int, seed: int) -> list[dict[str, Any]]:
    """A row for each recording and presenter. NAME.phones.json beside NAME.wav, {"phones": [[CMU phone, start in s, end in s], ...]},
    is judged too. The tracker's plain mesh is used, so that the figures compare with what others measure."""
    paths = sorted(folder.glob("*.wav"))
    if not paths:
        raise ConfigError("no_recordings", f"{folder} holds no *.wav", "Point --recordings to a folder of speech.")
    rows = []
    pairs = [(path, *presenter) for path in paths for presenter in portraits(num_presenters).items()]
    for path, name, portrait in tqdm(pairs, desc="recordings", unit="video"):
        samples = np.pad(read_wav(path), (0, REST_S * MODEL_RATE))
        num_frames = len(samples) * FPS // MODEL_RATE
        frames = np.concatenate([to_rgb(chunk) for chunk in on_sound(pipeline, portrait, samples, seed)])[:num_frames]
        opening = track(frames, refined=False).lip_opening()
        row = {"recording": path.stem, "presenter": name} | follows_sound(opening, loudness(samples, MODEL_RATE, num_frames))
        labels = path.with_suffix(".phones.json")
        if labels.exists():
            row |= articulation(opening, json.loads(labels.read_text())["phones"])
        rows.append(row)
    return rows


def recording_figures(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Means over rows that have the figure."""
    keys = ("face_found", "correlation", "lag_ms", "silence_over_loud", "bilabials_closed", "vowels_open")
    values = {key: [row[key] for row in rows if key in row and not np.isnan(row[key])] for key in keys}
    return {f"real_{key}": float(np.mean(found)) for key, found in values.items() if found}


def photographs(pipeline: AvatarPipeline, folder: Path, clip: Clip, seed: int) -> list[dict[str, Any]]:
    """A row for each picture of a folder, and for each built-in presenter: moved and voiced as the clip is, how wide its lips open (95th
    percentile, over the height of the face), and how well that follows the clip's. Who was never rendered should speak as who was."""
    paths = [path for path in sorted(folder.glob("*")) if path.suffix.lower() in PICTURES]
    if not paths:
        raise ConfigError("no_photographs", f"{folder} holds no pictures", "Point --photographs to a folder of *.jpg, *.png or *.webp.")
    everybody, pictures = portraits(), {path.stem: _prepared(path) for path in paths}
    truth = filled(track(clip.frames).lip_opening())
    rows = []
    for name, portrait in tqdm([*everybody.items(), *pictures.items()], desc="photographs", unit="video"):
        seen = track(np.concatenate([to_rgb(chunk[0]) for chunk in on_clip(pipeline, [portrait], clip, seed)]))
        opening = filled(seen.lip_opening()) if seen.face_found else np.zeros(len(truth))
        rows.append({
            "name": name, "photograph": name not in everybody, "face_found": seen.face_found, "opening": float(np.percentile(opening, 95)),
            "correlation": float(np.nan_to_num(correlation_and_lag(opening, truth)[0])),  # lips that stay shut follow nothing
        })  # fmt: skip
    return rows


def _prepared(path: Path) -> np.ndarray:
    try:
        return prepare_portrait(path.read_bytes())
    except PortraitError as error:
        raise ConfigError(error.code, f"{path}: {error.message}", error.hint) from error


def photograph_figures(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Means over the photographs, how wide their lips open over how wide presenters' do."""
    taken, rendered = ([row for row in rows if row["photograph"] == which] for which in (True, False))
    usual = float(np.mean([row["opening"] for row in rendered]))
    return {
        "photograph_opening": float(np.mean([row["opening"] for row in taken])) / usual,
        "photograph_least_opening": min(row["opening"] for row in taken) / usual,
        "photograph_correlation": float(np.mean([row["correlation"] for row in taken])),
        "photograph_face_found": float(np.mean([row["face_found"] for row in taken])),
    }  # fmt: skip


def long_run(pipeline: AvatarPipeline, samples: np.ndarray, minutes: float, seed: int) -> dict[str, Any]:
    """The first presenter speaks on and on, the same sound over and over. What drifts: `drift` of sharpness, of luma and both chromas,
    and of the face's distance from the portrait's, with the head at its mean pose and as seen; and how much computing a second of video
    took."""
    if minutes < MIN_MINUTES:
        raise ConfigError("too_short", f"a long run of {minutes} minutes is none", f"--minutes must be 0 or at least {MIN_MINUTES}.")
    portrait = next(iter(portraits(1).values()))
    num_chunks = round(minutes * 60 * 1000 / pipeline.geometry.chunk_ms)
    repeated = np.resize(samples, num_chunks * pipeline.geometry.chunk_samples_16k)
    values: dict[str, list[float]] = {name: [] for name in ("sharpness", "luma", "chroma_blue", "chroma_red")}
    computed_s = 0.0

    def watched() -> Iterator[np.ndarray]:
        nonlocal computed_s
        video, height = on_sound(pipeline, portrait, repeated, seed), pipeline.geometry.height
        for _ in tqdm(range(num_chunks), desc="long run", unit="chunk"):
            began = time.perf_counter()
            chunk = next(video)
            computed_s += time.perf_counter() - began
            for frame in chunk:
                if len(values["luma"]) % WATCH_EVERY == 0:
                    yield to_rgb(frame[None])[0]
                blue, red = frame[height:].reshape(2, -1)
                planes = (sharpness(frame[:height]), frame[:height].mean(), blue.mean(), red.mean())
                for series, value in zip(values.values(), planes, strict=True):
                    series.append(float(value))

    face = mean_shape(track([portrait] * WATCH_EVERY).skull())
    skull = track(watched()).skull()  # this runs it
    distance = shape_distance(skull, face)
    seen = {name: np.array(found)[::WATCH_EVERY] for name, found in values.items()} | {"identity": distance}
    poses = head_motion(skull)
    series = {name: drift(at_mean_pose(found, poses)) for name, found in seen.items()}
    series |= {f"{name}_as_seen": drift(found) for name, found in seen.items()}
    return {"minutes": minutes, "bins": NUM_BINS, "real_time_factor": computed_s / (minutes * 60)} | series


def long_run_figures(run: dict[str, Any]) -> dict[str, float]:
    series = ("sharpness", "luma", "chroma_blue", "chroma_red", "identity")
    return {
        "drift_sharpness": run["sharpness"]["deviation"],
        "drift_colour": max(run[name]["deviation"] for name in series[1:4]),
        "drift_identity": run["identity"]["deviation"],
        "steady": float(np.mean([run[name]["low"] <= 0.0 <= run[name]["high"] for name in series])),
        "real_time_factor": run["real_time_factor"],
    }  # fmt: skip
