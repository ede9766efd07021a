"""What the order of tasks does: short teachers from nothing that differ in when tasks join, and in whether their weights are averaged.

Columns: for each task the error of one-step predictions on held-out people, as a share of the still portrait's (without a
reference: of an empty answer's). Short teachers are worse than the shipped one: compare rows, not with other tables.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace

from model.training.loop import begin
from model.training.soup import SOUP, joined
from model.training.train_teacher import Settings, add_sequence_arguments, evaluate, load_data, starting, teach

EASY_FIRST = {"lipsync": 0.0, "flf2v": 0.3, "talk": 0.6, "t2v": 0.6}


def variants(base: Settings) -> dict[str, Settings]:
    return {
        "hard to easy": base,
        "hard to easy, weights not averaged": replace(base, decay=0.0),
        "all tasks from the start": replace(base, order=lambda progress: SOUP),
        "easy to hard": replace(base, order=lambda progress: joined(progress, EASY_FIRST)),
    }


def main() -> None:
    example = "example: livemimic train ablate-soup --data clips/ --eval eval/ --vae runs/vae.safetensors ... --minutes 4 --out rows.json"
    parser = argparse.ArgumentParser(description=__doc__, epilog=example)
    add_sequence_arguments(parser)
    args = parser.parse_args()
    begin(args.seed)
    data = load_data(args)
    rows: dict[str, dict[str, float]] = {}
    for name, settings in variants(Settings(args.minutes, args.batch, args.rate, args.seed)).items():
        print(f"{name}:", flush=True)
        begin(args.seed)  # all start from the same weights
        training = teach(starting(args.vae, args.audio), data, settings, args.device)
        rows[name] = evaluate(training.average.cpu(), data.held_out, data.weight.cpu()) | {"steps": training.steps}
    columns = [f"held_out_error_{task}" for task in SOUP] + ["steps"]
    print(f"{'':36}" + "".join(f"{column.removeprefix('held_out_error_'):>10}" for column in columns))
    for name, row in rows.items():
        print(f"{name:36}" + "".join(f"{row[column]:10.3f}" for column in columns))
    told = {"minutes": args.minutes, "batch": args.batch, "rate": args.rate, "seed": args.seed}
    args.out.write_text(json.dumps(told | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
