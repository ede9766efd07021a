"""The embedded preset's text encoder: a small vocabulary of style words, one learned vector each.

Unknown words are ignored, so a prompt written for the large model does no harm here. `tokenise` is the whole tokenizer.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

STYLE_WORDS = ("neutral", "smiling", "serious", "surprised")
TEXT_TOKENS = 4
_INDEX = {word: i + 1 for i, word in enumerate(STYLE_WORDS)}


def tokenise(prompt: str) -> list[int]:
    """Token ids, exactly TEXT_TOKENS long, 0 = none."""
    ids = [_INDEX[word] for word in re.findall(r"[a-z]+", prompt.lower()) if word in _INDEX]
    return (ids + [0] * TEXT_TOKENS)[:TEXT_TOKENS]


class StyleEncoder(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(STYLE_WORDS) + 1, dim)

    def forward(self, ids_BL: Tensor) -> Tensor:
        """Token ids [B, TEXT_TOKENS] to text features [B, TEXT_TOKENS, dim]."""
        return self.embedding(ids_BL)

    def encode(self, prompt: str) -> Tensor:
        return self(torch.tensor([tokenise(prompt)]))
