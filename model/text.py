"""The embedded preset's text encoder: a small vocabulary of style words, one learned vector each.

Unknown words are ignored, so a prompt written for the large model does no harm here. Which words of a prompt ask for which style is said
in `model/manner.py`. `tokenise` is the whole tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.manner import styles_of

# What training showed (`model/training/styles.py`): nobody there shakes the head.
STYLE_WORDS = ("neutral", "smiling", "serious", "surprised", "nodding", "left", "right", "up", "down", "calm", "lively")
TEXT_TOKENS = 4
_INDEX = {word: i + 1 for i, word in enumerate(STYLE_WORDS)}


def tokenise(styles: Sequence[str]) -> list[int]:
    """Token ids, exactly TEXT_TOKENS long, 0 = none."""
    ids = [_INDEX[style] for style in styles if style in _INDEX]
    return (ids + [0] * TEXT_TOKENS)[:TEXT_TOKENS]


class StyleEncoder(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(STYLE_WORDS) + 1, dim)

    def forward(self, ids_BL: Tensor) -> Tensor:
        """Token ids [B, TEXT_TOKENS] to text features [B, TEXT_TOKENS, dim]."""
        return self.embedding(ids_BL)

    def encode(self, prompt: str) -> Tensor:
        return self(torch.tensor([tokenise(styles_of(prompt))]))
