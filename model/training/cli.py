"""`livemimic train STEP ...`: the way from nothing to weights, one command a step; docs/training.md walks through it."""

from __future__ import annotations

import argparse
import importlib
import sys

from model.errors import ModelError

STEPS = {
    "head": ("model.training.assets", "pack the head model from its public repository's OBJ folder"),
    "clips": ("model.training.clips", "render talking people"),
    "fields": ("model.training.train_fields", "train how portraits move with what is told"),
    "autoencoder": ("model.training.train_vae", "train the video autoencoder"),
    "audio": ("model.training.train_audio", "synthesise speech and train the audio encoder"),
    "teacher": ("model.training.train_teacher", "train the diffusion transformer"),
    "student": ("model.training.train_student", "distil its guided answer into one pass"),
    "decoder": ("model.training.train_decoder", "train the decoder where people look, on what is really generated"),
    "finders": ("model.training.train_finders", "train what finds eyes and person, on faces bent and lit in more ways than rendered"),
    "teeth": ("model.training.train_teeth", "train what finds where a portrait's upper teeth are"),
    "ablate": ("model.training.ablate", "what each part of the student's training does, on short students"),
    "ablate-soup": ("model.training.ablate_soup", "what the order of the tasks does, on short teachers"),
    "evaluate": ("model.training.evaluation.evaluate", "measure the embedded preset, or another bundle"),
    "bundle": ("model.training.bundle", "pack the parts into model/weights"),
    "portraits": ("model.training.portraits", "draw the built-in presenters"),
}


def run(args: argparse.Namespace) -> int:
    """Runs the step named first in `args.rest` with the rest as its own arguments."""
    if not args.rest or args.rest[0] not in STEPS:
        print("livemimic train STEP [options]; each step has its own --help. In order:")
        for name, (_, summary) in STEPS.items():
            print(f"  {name:12} {summary}")
        return 0 if not args.rest else 2
    module, _ = STEPS[args.rest[0]]
    sys.argv = [f"livemimic train {args.rest[0]}", *args.rest[1:]]
    try:
        importlib.import_module(module).main()
    except ModelError as error:
        print(f"livemimic train {args.rest[0]}: {error.message}\n  {error.hint}", file=sys.stderr)
        return 1
    return 0
