"""Do the lips follow the voice? Renders recordings as `livemimic render` does and reads the faces back with a tracker the project did
not train. `livemimic train evaluate --recordings` measures the same beside all other figures; this goes through the whole of render.

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
import numpy as np  # noqa: E402

from model.geometry import MEDIA_RATE  # noqa: E402
from model.pipeline import AvatarPipeline  # noqa: E402
from model.portraits import builtin_portraits  # noqa: E402
from model.training.evaluation.lips import articulation, follows_sound, loudness  # noqa: E402
from model.training.evaluation.tracker import track  # noqa: E402
from model.training.evaluation.videos import to_rgb  # noqa: E402
from streamer.portraits import load_portrait  # noqa: E402
from streamer.speech_file import decode_speech  # noqa: E402
from streamer.spoken import talk_frames  # noqa: E402


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
            opening = track(to_rgb(np.stack(frames)), refined=False).lip_opening()
            row = {"recording": path.stem, "portrait": name} | follows_sound(opening, loudness(sound, MEDIA_RATE, len(frames)))
            labels = path.with_suffix(".phones.json")
            if labels.exists():
                row |= articulation(opening, json.loads(labels.read_text())["phones"])
            rows.append(row)
            print("  ".join(f"{k} {v:.3f}" if isinstance(v, float) else str(v) for k, v in row.items()), flush=True)
    if args.json:
        args.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
