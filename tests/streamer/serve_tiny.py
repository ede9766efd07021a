"""`livemimic serve` with the tiny pipeline and two portraits; takes the options of `serve` and some time limits."""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from model.errors import PortraitError
from streamer import server
from streamer.cli import build_parser, serve_config
from streamer.portrait_store import PortraitStore
from tests.streamer.tiny_pipeline import BAD_PORTRAIT, FACTORY


def examine(data: bytes) -> tuple[np.ndarray, dict[str, object]]:
    if not data.startswith(b"\x89PNG"):
        raise PortraitError("not_an_image", "this is no picture", "send a PNG")
    return np.full((256, 256, 3), 90, dtype=np.uint8), {"ok": True}


def save(folder: Path, name: str, value: int) -> Path:
    path = folder / f"{name}.png"
    Image.new("RGB", (256, 256), (value, value, value)).save(path)
    return path


def main() -> int:
    args = build_parser().parse_args(["serve", "--port", "0", "--no-browser", *sys.argv[1:]])
    config = serve_config(args)
    limits = {
        name: float(os.environ[name.upper()]) for name in ("connect_ttl_s", "heartbeat_ttl_s", "token_ttl_s") if name.upper() in os.environ
    }
    config = replace(
        config,
        worker=replace(config.worker, pipeline_factory=FACTORY),
        session=replace(config.session, **limits),
    )
    with tempfile.TemporaryDirectory() as folder:
        builtin = {"plain": save(Path(folder), "plain", 90), "bad": save(Path(folder), "bad", BAD_PORTRAIT)}
        return server.run(config, PortraitStore(builtin, examine))


if __name__ == "__main__":
    sys.exit(main())
