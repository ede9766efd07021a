"""Do the lips follow the voice? Renders recordings and reads the faces back with a tracker the project did not train.

For each recording: share of frames with a face, correlation of lip opening with loudness, lag of the best correlation, and opening
in silence over opening in loud speech. Opening is the distance of MediaPipe FaceMesh's inner lip points 13 and 14 over
the height of the face (10 to 152). A recording with phones beside it, NAME.phones.json, {"phones": [[CMU phone, start in s, end in s],
...]}, is also judged on them: closures of P, B and M below 15 % of the 95th percentile, open vowels above 45 %.

    python tests/benchmarks/lips.py recordings/ --json tests/benchmarks/results/lips.json
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
import av  # noqa: E402
import numpy as np  # noqa: E402

from model.geometry import FPS, MEDIA_RATE  # noqa: E402
from model.pipeline import AvatarPipeline  # noqa: E402
from model.portraits import builtin_portraits  # noqa: E402
from streamer.render import load_portrait  # noqa: E402
from streamer.speech_file import decode_speech  # noqa: E402
from streamer.talk import talk_frames  # noqa: E402

UPPER_LIP, LOWER_LIP, FOREHEAD, CHIN = 13, 14, 10, 152
MAX_LAG = 10  # frames
CLOSED, OPEN = 0.15, 0.45  # of the 95th percentile of the opening


def lip_opening(frames: list[np.ndarray]) -> np.ndarray:
    """Opening of every I420 frame, NaN where no face is found."""
    import mediapipe as mp

    out = np.full(len(frames), np.nan)
    with mp.solutions.face_mesh.FaceMesh(static_image_mode=False, max_num_faces=1) as mesh:
        for i, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="yuv420p").reformat(width=512, height=512, format="rgb24")
            found = mesh.process(picture.to_ndarray()).multi_face_landmarks
            if found:
                points = np.array([(p.x, p.y) for p in found[0].landmark])
                height = np.linalg.norm(points[CHIN] - points[FOREHEAD])
                out[i] = np.linalg.norm(points[UPPER_LIP] - points[LOWER_LIP]) / height
    return out


def loudness(sound: np.ndarray, num_frames: int) -> np.ndarray:
    """RMS of every frame's 40 ms, smoothed over three frames."""
    spacing = MEDIA_RATE // FPS
    padded = np.pad(sound.astype(np.float64) / 32768, (0, num_frames * spacing))[: num_frames * spacing]
    rms = np.sqrt((padded.reshape(num_frames, spacing) ** 2).mean(axis=1))
    return np.convolve(rms, np.ones(3) / 3, mode="same")


def judge(opening: np.ndarray, loud: np.ndarray) -> dict[str, float]:
    found = ~np.isnan(opening)
    filled = np.interp(np.arange(len(opening)), np.flatnonzero(found), opening[found]) if found.any() else np.zeros(len(opening))
    smooth = np.convolve(filled, np.ones(3) / 3, mode="same")
    scores = []
    for lag in range(-MAX_LAG, MAX_LAG + 1):  # positive = the picture is late
        a, b = smooth[max(lag, 0) : len(smooth) + min(lag, 0)], loud[max(-lag, 0) : len(loud) - max(lag, 0)]
        scores.append(float(np.corrcoef(a, b)[0, 1]))
    best = int(np.argmax(scores))
    offset = 0.0
    if 0 < best < 2 * MAX_LAG:
        left, middle, right = scores[best - 1 : best + 2]
        offset = 0.5 * (left - right) / (left - 2 * middle + right)
    quiet, speech = loud < 0.06 * np.percentile(loud, 95), loud > np.percentile(loud, 70)
    silence = float(filled[quiet].mean() / filled[speech].mean()) if quiet.sum() >= 3 else float("nan")
    return {
        "face_found": float(found.mean()), "correlation": scores[MAX_LAG], "lag_ms": (best - MAX_LAG + offset) * 1000 / FPS,
        "silence_over_loud": silence, "opening_p95": float(np.percentile(filled, 95)),
    }  # fmt: skip


def articulation(opening: np.ndarray, phones: list[tuple[str, float, float]]) -> dict[str, float]:
    """Share of bilabials whose lips close and of open vowels whose lips open, within a frame of the phone."""
    scale = np.nanpercentile(opening, 95)

    def around(names: tuple[str, ...]) -> list[np.ndarray]:
        spans = [(int(start * FPS), int(np.ceil(end * FPS))) for name, start, end in phones if name in names]
        return [opening[max(first - 1, 0) : last + 1] / scale for first, last in spans]

    closed = [np.nanmin(part) < CLOSED for part in around(("P", "B", "M"))]
    opened = [np.nanmax(part) > OPEN for part in around(("AA", "AE", "AO", "AW", "AY"))]
    return {"bilabials_closed": float(np.mean(closed)), "vowels_open": float(np.mean(opened))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="recordings, *.wav")
    parser.add_argument("--portraits", type=int, default=2, help="how many built-in presenters say each recording")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--weights", type=Path)
    args = parser.parse_args()
    pipeline = AvatarPipeline.load(weights=args.weights, device="cpu")
    rows = []
    for path in sorted(args.folder.glob("*.wav")):
        with path.open("rb") as file:
            sound = decode_speech(file)
        # Two seconds of silence at the end, to see the lips at rest.
        sound = np.concatenate((sound, np.zeros(2 * MEDIA_RATE, dtype=np.int16)))
        for name in list(builtin_portraits())[: args.portraits]:
            frames = list(talk_frames(pipeline, load_portrait(name), sound, seed=0, prompt=""))
            opening = lip_opening(frames)
            row = {"recording": path.stem, "portrait": name} | judge(opening, loudness(sound, len(frames)))
            labels = path.with_suffix(".phones.json")
            if labels.exists():
                row |= articulation(opening, json.loads(labels.read_text())["phones"])
            rows.append(row)
            print("  ".join(f"{k} {v:.3f}" if isinstance(v, float) else str(v) for k, v in row.items()), flush=True)
    if args.json:
        args.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
