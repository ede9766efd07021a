"""Pack trained parts into the embedded preset: `model/weights/presenter.safetensors` and its card."""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from model.audio import AudioEncoder
from model.checkpoints import PRESENTER_FILE, PresenterParts, save_presenter
from model.config import PRESENTER_DIT, PRESENTER_VAE, PRESENTER_WINDOW, to_metadata
from model.errors import ConfigError
from model.training.train_teacher import build
from model.vae import ReferenceVAE


def attach_evaluation(weights: Path, evaluation: Path) -> None:
    """Puts what `livemimic train evaluate --json` wrote into the card of the weights. Raises ConfigError where it judged others."""
    judged = json.loads(evaluation.read_text())
    if judged["weights_sha256"] != hashlib.sha256(weights.read_bytes()).hexdigest():
        raise ConfigError(
            "evaluation_of_others", f"{evaluation} judged other weights than {weights}", f"livemimic train evaluate --weights {weights} ..."
        )
    card = weights.with_suffix(".json")
    card.write_text(json.dumps(json.loads(card.read_text()) | {"evaluation": judged}, indent=2) + "\n")


def averaged(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of weights that were trained from a common start (model soups, arXiv 2203.05482)."""
    return {name: torch.stack([state[name].float() for state in states]).mean(dim=0).to(states[0][name].dtype) for name in states[0]}


def main() -> None:
    example = "example: livemimic train bundle --vae runs/vae.safetensors --audio runs/audio.safetensors --student runs/student.safetensors"
    parser = argparse.ArgumentParser(description=__doc__, epilog=example)
    parser.add_argument("--vae", type=Path, required=True, nargs="+", help="several whose decoders went on from one are averaged")
    parser.add_argument("--audio", type=Path, required=True)
    parser.add_argument("--student", type=Path, required=True, nargs="+", help="several of one teacher's line are averaged")
    parser.add_argument("--out", type=Path, default=PRESENTER_FILE)
    parser.add_argument("--data", default="", help="what it was trained on, in words, for the card")
    parser.add_argument("--evaluation", type=Path, help="JSON of `livemimic train evaluate` of these very weights, for the card")
    args = parser.parse_args()
    sequence = build()
    sequence.load_state_dict(averaged([load_file(student) for student in args.student]))
    vae = ReferenceVAE(PRESENTER_VAE)
    vae.load_state_dict(averaged([load_file(part) for part in args.vae]))
    card: dict[str, object] = {
        "preset": "presenter", "licence": "Apache-2.0", "data": args.data, "torch": torch.__version__,
        "commit": subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip(),
        "config": to_metadata(PRESENTER_VAE, PRESENTER_DIT, PRESENTER_WINDOW), "training": {},
    }  # fmt: skip
    for part in (*args.vae, args.audio, *args.student):
        log = part.with_suffix(".json")
        if log.exists():
            card["training"] |= json.loads(log.read_text())  # type: ignore[operator]
    save_presenter(args.out, PresenterParts(vae, sequence.dit, sequence.text, AudioEncoder.load(args.audio)), card)
    if args.evaluation:
        attach_evaluation(args.out, args.evaluation)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
