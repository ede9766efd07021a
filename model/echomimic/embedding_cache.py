"""Text and image embeddings kept on disk, so that umT5 (11 GB) and CLIP (5 GB) are loaded for new prompts and portraits only.

A file's name is a hash of what was embedded, the precision, and the encoder file's place, size and time: another encoder never
meets another's embeddings. A prompt's takes at most 4 MB, a portrait's 1.3 MB; deleting the folder is always safe.
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
    return Path.home() / ".cache" / "livemimic" / "embeddings"


class EmbeddingCache:
    """Of one encoder. Two processes may share a folder."""

    def __init__(self, folder: Path, encoder_file: Path, dtype: torch.dtype) -> None:
        stat = encoder_file.stat()
        self._folder = folder
        self._encoder = f"{encoder_file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{dtype}"

    def get(self, content: bytes) -> Tensor | None:
        """On the CPU; None if it is not there, or damaged."""
        path = self._path(content)
        try:
            return load_file(path)[_NAME] if path.is_file() else None
        except (SafetensorError, OSError, KeyError):
            path.unlink(missing_ok=True)
            return None

    def put(self, content: bytes, embedding: Tensor) -> None:
        """Written beside its place and renamed: a stop leaves no half file."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(content)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        save_file({_NAME: embedding.cpu().contiguous()}, partial)
        partial.replace(path)

    def _path(self, content: bytes) -> Path:
        return self._folder / (hashlib.sha256(self._encoder.encode() + b"|" + content).hexdigest() + ".safetensors")
