"""Text embeddings kept on disk, so that the 11 GB text encoder is loaded for new prompts only.

A file's name is a hash of the text, the precision, and the encoder file's place, size and time: another encoder never meets
another's embeddings.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

_NAME = "embedding"


def default_folder() -> Path:
    return Path.home() / ".cache" / "livemimic" / "text"


class TextCache:
    def __init__(self, folder: Path, encoder_file: Path, dtype: torch.dtype) -> None:
        stat = encoder_file.stat()
        self._folder = folder
        self._encoder = f"{encoder_file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{dtype}"

    def get(self, text: str) -> Tensor | None:
        """[L, D] on the CPU; None if it is not there, or damaged."""
        path = self._path(text)
        try:
            return load_file(path)[_NAME] if path.is_file() else None
        except (SafetensorError, OSError, KeyError):
            path.unlink(missing_ok=True)
            return None

    def put(self, text: str, embedding: Tensor) -> None:
        """Written beside its place and renamed: a stop leaves no half file."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(text)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        save_file({_NAME: embedding.cpu().contiguous()}, partial)
        partial.replace(path)

    def _path(self, text: str) -> Path:
        return self._folder / (hashlib.sha256(f"{self._encoder}|{text}".encode()).hexdigest() + ".safetensors")
