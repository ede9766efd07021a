"""The command line `livemimic`. Subcommands import what they need when they run, so that `--help` is instant."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from model.presets import PUBLISHED
from streamer.config import ServeConfig, SessionConfig, WorkerConfig, env_default, version
from streamer.live_options import add_live_options, add_served_options, served_options
from streamer.published_options import add_published_options

Command = Callable[[argparse.Namespace], int]
DEVICES = ("auto", "cpu", "cuda")
TASKS = ("talk", "lipsync", "i2v", "flf2v", "t2v")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser()
    # What follows `train` belongs to the training's own parser, its --help included.
    passes_on = len(words) > 1 and words[0] == "train" and words[1] not in ("-h", "--help")
    args = parser.parse_args(words[:1] if passes_on else words)
    if passes_on:
        args.rest = words[1:]
    command: Command = args.run
    try:
        return command(args)
    except KeyboardInterrupt:
        return 130


def _later(target: str) -> Command:
    """A command that is imported when it is run; `target` is "module:function"."""

    def run(args: argparse.Namespace) -> int:
        module, _, function = target.partition(":")
        return int(getattr(importlib.import_module(module), function)(args))

    return run


def build_parser() -> argparse.ArgumentParser:
    parser = _formatted(
        argparse.ArgumentParser(prog="livemimic", description="Voice in, a talking person out, live."),
        "livemimic serve\nlivemimic render --audio voice.wav --out talk.mp4\nlivemimic doctor",
    )
    parser.add_argument("--version", action="version", version=f"livemimic {version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, summary: str, examples: str, run: Command) -> argparse.ArgumentParser:
        command = _formatted(commands.add_parser(name, help=summary, description=summary), examples)
        command.set_defaults(run=run)
        return command

    _serve_arguments(
        add(
            "serve", "Start the live server and its demo page.",
            "livemimic serve\nlivemimic serve --host 0.0.0.0 --port 9000 --portrait me.jpg\n"
            "livemimic serve --preset echomimic-v3-flash --weights DIR --adapter student.safetensors --tiny-decoder taew2_1.pth\n"
            "livemimic serve --max-sessions 2 --cors-origin https://example.org --ice-server stun:stun.example.org:3478",
            serve,
        )
    )  # fmt: skip
    _render_arguments(
        add(
            "render", "Make a finished video file: from a voice and a portrait, or as --task says.",
            "livemimic render --audio voice.wav --out talk.mp4\n"
            "livemimic render --audio voice.mp3 --portrait me.jpg --prompt smiling --seed 7 --out me.mp4\n"
            "livemimic render --task i2v --portrait clara --prompt 'smiling, nodding' --seconds 8 --out clara.mp4\n"
            "livemimic render --task flf2v --portrait first.png --last last.png --seconds 4 --out between.mp4\n"
            "livemimic render --task t2v --prompt 'An old man with a beard looks left.' --audio voice.wav --out old.mp4\n"
            "livemimic render --task lipsync --video interview.mp4 --audio dubbed.wav --out dubbed.mp4\n"
            "livemimic render --preset echomimic-v3-flash --weights DIR --portrait me.jpg --prompt 'A man talks.' "
            "--audio a.wav --out o.mp4",
            _later("streamer.render:run"),
        )
    )  # fmt: skip
    _portraits_arguments(
        add(
            "portraits", "List the built-in presenters, save them as PNG files, or draw a new one.",
            "livemimic portraits\nlivemimic portraits --out faces/\nlivemimic portraits --new --seed 104012 --head head.npz --out new.png",
            _later("streamer.portraits:run"),
        )
    )  # fmt: skip
    preflight = add(
        "preflight", "Look at photographs: is there a face, will it do, what would make it better?",
        "livemimic preflight me.jpg\nlivemimic preflight photos/*.jpg --json", _later("streamer.preflight:run"),
    )  # fmt: skip
    preflight.add_argument("files", nargs="+", type=Path, metavar="FILE", help="pictures: JPEG, PNG, WebP, GIF or BMP")
    preflight.add_argument("--json", action="store_true", help="print JSON instead of text")
    bench = add(
        "bench", "Measure how fast this machine is and how many sessions fit.",
        "livemimic bench\nlivemimic bench --json bench.json --seconds 20", _later("streamer.bench:run"),
    )  # fmt: skip
    _model_arguments(bench)
    add_served_options(bench)
    add_live_options(bench)
    bench.add_argument("--seconds", type=float, default=10.0, metavar="S", help="how long to measure (default: %(default)s)")
    bench.add_argument("--json", type=Path, metavar="FILE", help="write the result here as well")
    doctor = add(
        "doctor", "Check what this machine has and what is missing.", "livemimic doctor\nlivemimic doctor --json",
        _later("streamer.doctor:run"),
    )  # fmt: skip
    doctor.add_argument("--json", action="store_true", help="print JSON instead of a table")
    verify = add(
        "verify", "Compare the EchoMimicV3 modules with golden tensors in a folder, case by case.",
        "livemimic verify golden", _later("model.golden.report:run"),
    )  # fmt: skip
    verify.add_argument("dir", type=Path, metavar="DIR", help="folder of golden files, manifests in it or beside it")
    train = add(
        "train", "Train the embedded preset, step by step; without a step it lists them in order.",
        "livemimic train\nlivemimic train clips --help", _later("model.training.cli:run"),
    )  # fmt: skip
    train.set_defaults(rest=[])
    train.add_argument("rest", nargs="*", metavar="...", help="step and options of the training, passed on as they are")
    return parser


def _formatted(parser: argparse.ArgumentParser, examples: str) -> argparse.ArgumentParser:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "examples:\n" + "\n".join(f"  {line}" for line in examples.splitlines())
    return parser


def _model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default=env_default("PRESET", "presenter"), help="model preset (default: %(default)s)")
    parser.add_argument("--weights", type=Path, metavar="DIR", help="folder or file with the weights of the preset")
    parser.add_argument("--device", choices=DEVICES, default=env_default("DEVICE", "auto"), help="where it runs (default: %(default)s)")
    parser.add_argument("--steps", type=int, metavar="N", help="denoising steps a chunk; default: what the preset was made for")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads of the model (default: %(default)s)")


def _serve_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default=env_default("HOST", "127.0.0.1"), help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=env_default("PORT", "8080"), help="0 takes a free one (default: %(default)s)")
    _model_arguments(parser)
    add_served_options(parser)
    add_live_options(parser)
    parser.add_argument("--portrait", metavar="NAME|FILE", help="the default presenter: a built-in one, or a picture file")
    parser.add_argument("--max-sessions", type=int, metavar="N", help="upper bound; without it the measured speed decides alone")
    parser.add_argument("--cors-origin", action="append", default=[], metavar="URL", help="page that may use the API; repeatable")
    parser.add_argument("--ice-server", action="append", default=[], metavar="URL", help="stun: or turn: address; repeatable")
    parser.add_argument("--mic-slack-ms", type=int, default=40, metavar="MS", help="wait for late microphone data (default: %(default)s)")
    parser.add_argument("--no-browser", action="store_true", help="do not open the demo page on a desktop")
    parser.add_argument("--barcode", action="store_true", help="draw the frame number into the picture, for measurements")
    parser.add_argument("--trace", type=Path, metavar="DIR", help="write SESSION.json and SESSION.wav there when a session ends")
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default=env_default("LOG_LEVEL", "info"),
        help="what is written to stderr (default: %(default)s)",
    )  # fmt: skip


def _render_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, metavar="FILE.mp4", help="the video, with the sound in it where there is any")
    parser.add_argument(
        "--task", choices=TASKS, default="talk",
        help="talk: a portrait says the audio; i2v: it moves for --seconds; flf2v: from --portrait to --last; t2v: the prompt picks the "
        "presenter; lipsync: the mouth of --video says the audio. echomimic-v3-*: all need --audio, i2v only adds it to the film; t2v "
        "draws the picture; no lipsync (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--audio", metavar="FILE", help="the voice: any file with sound that FFmpeg reads")
    parser.add_argument("--seconds", type=float, metavar="S", help="length where there is no voice (i2v, flf2v, t2v)")
    parser.add_argument("--portrait", metavar="NAME|FILE", help="a built-in presenter or a picture; see 'livemimic portraits'")
    parser.add_argument("--last", metavar="NAME|FILE", help="last picture, of the same person (flf2v)")
    parser.add_argument("--video", type=Path, metavar="FILE", help="video whose lips are redone (lipsync)")
    parser.add_argument(
        "--prompt", metavar="TEXT",
        help="style words: smiling, serious, surprised, nodding, shaking the head, looking left/right/up/down, calm, lively; with t2v also "
        "who is seen; a sentence for echomimic-v3-*",
    )  # fmt: skip
    _model_arguments(parser)
    # Nothing else has to keep up here, as the media process does beside a live model.
    parser.set_defaults(threads=min(2, os.cpu_count() or 1))
    parser.add_argument("--seed", type=int, metavar="N", help="same seed, same video (default: 0, echomimic-v3-*: 43)")
    add_published_options(parser)
    add_live_options(parser)


def _portraits_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="DIR|FILE.png", help="folder for the built-in PNG files; with --new, the file to write")
    parser.add_argument("--new", action="store_true", help="draw a person who is not built in; needs --head and the extra [train]")
    parser.add_argument("--seed", type=int, metavar="N", help="who it is, the same for ever; training saw none from 100000 to 899999")
    parser.add_argument("--head", type=Path, metavar="FILE", help="the packed head model; docs/training.md says how to make it")


def worker_config(args: argparse.Namespace) -> WorkerConfig:
    """Raises ValueError with the option's name. A published preset's chunks are megabytes, and few sessions fit: few slots do."""
    return WorkerConfig(
        preset=args.preset, weights=args.weights, device=args.device, steps=args.steps, num_threads=args.threads,
        live=served_options(args), num_slots=16 if args.preset in PUBLISHED else 64,
    )  # fmt: skip


def serve_config(args: argparse.Namespace) -> ServeConfig:
    """Raises ValueError with the option's name and range."""
    session = SessionConfig(mic_slack_ms=args.mic_slack_ms, ice_servers=tuple(args.ice_server), barcode=args.barcode, trace_dir=args.trace)
    return ServeConfig(
        host=args.host, port=args.port, worker=worker_config(args), session=session, portrait=args.portrait,
        max_sessions=args.max_sessions, cors_origins=tuple(args.cors_origin), open_browser=not args.no_browser,
        log_level=args.log_level,
    )  # fmt: skip


def serve(args: argparse.Namespace) -> int:
    from streamer.server import run

    try:
        config = serve_config(args)
    except ValueError as error:
        print(f"livemimic serve: {error}", file=sys.stderr)
        return 2
    return run(config)


if __name__ == "__main__":
    sys.exit(main())
