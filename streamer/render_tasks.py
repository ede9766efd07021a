"""Which options each task of `livemimic render` takes on which presets. One that is missing, or would be ignored, is an error."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from model.geometry import FPS
from model.presets import PUBLISHED, check_preset
from streamer.errors import BadInput
from streamer.film import MAX_S


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a task needs and what it may have besides --out, --seed and the options of the model."""

    needs: tuple[str, ...]
    may: tuple[str, ...] = ()

    def __contains__(self, name: str) -> bool:
        return name in self.needs or name in self.may


OPTIONS = ("audio", "seconds", "portrait", "last", "video", "prompt")
# A clip without a voice lasts for --seconds; where both are possible, one of the two is needed.
TASKS = {
    "talk": Inputs(needs=("audio",), may=("portrait", "prompt")),
    "i2v": Inputs(needs=("seconds",), may=("portrait", "prompt")),
    "flf2v": Inputs(needs=("portrait", "last"), may=("audio", "seconds", "prompt")),
    "t2v": Inputs(needs=("prompt",), may=("audio", "seconds")),
    "lipsync": Inputs(needs=("audio", "video")),
}
PUBLISHED_TASKS = {
    "talk": Inputs(needs=("audio", "portrait"), may=("prompt",)),
    "i2v": Inputs(needs=("audio", "portrait"), may=("prompt",)),
    "flf2v": Inputs(needs=("audio", "portrait", "last"), may=("prompt",)),
    "t2v": Inputs(needs=("audio",), may=("prompt",)),
}


def check_inputs(args: argparse.Namespace) -> None:
    """Raises ModelError or BadInput."""
    check_preset(args.preset)
    tasks = PUBLISHED_TASKS if args.preset in PUBLISHED else TASKS
    if args.task not in tasks:
        raise BadInput("task_unavailable", f"Task {args.task!r} is not available on preset {args.preset}.", f"It has: {', '.join(tasks)}.")
    inputs = tasks[args.task]
    given = {name for name in OPTIONS if getattr(args, name) is not None}
    for name in inputs.needs:
        if name not in given:
            raise BadInput("option_missing", f"--{name} is needed for task {args.task}.", "See livemimic render --help.")
    for name in sorted(given):
        if name not in inputs:
            owners = " and ".join(task for task, other in tasks.items() if name in other) or "preset presenter"
            here = args.task if any(name in other for other in tasks.values()) else args.preset
            raise BadInput("option_of_another_task", f"--{name} belongs to {owners}, not {here}.", f"Leave --{name} out.")
    if len(given & {"audio", "seconds"}) != 1:
        raise BadInput("no_length", f"Task {args.task} needs either --audio or --seconds.", "One of them says how long the video is.")
    if args.seconds is not None and not 1 / FPS <= args.seconds <= MAX_S:
        raise BadInput("bad_length", f"--seconds must be {1 / FPS} to {MAX_S:.0f}, got {args.seconds}.", "For example --seconds 8.")
