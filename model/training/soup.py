"""The soup of tasks: what each lets the transformer know of a sequence, told by masks alone (EchoMimicV3, arXiv 2507.03905, section 3).

Talking and image to video know the reference and nothing of a new frame; text to video not even the reference; lip-sync all of every
frame but the mouth; first and last picture the video frames with which the sequence ends at some chunk. Continuation is in all of them:
every frame sees the ones before it.

The more is known the easier a task is. Training begins with those of which least is known, easier ones join (`hard_to_easy`), and
averaged weights keep what was learnt before: where easy ones come first, hard ones are learnt less well.
Legend: K latent frames, F video frames a latent frame, h w latent pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.mouth import mouth_mask

Soup = Mapping[str, float]  # shares of the sequences, of each task
Order = Callable[[float], Soup]  # the soup at some progress of training, from 0 to 1

SOUP: Soup = {"talk": 0.66, "t2v": 0.05, "flf2v": 0.12, "lipsync": 0.17}
JOINS: Mapping[str, float] = {"talk": 0.0, "t2v": 0.0, "flf2v": 0.3, "lipsync": 0.6}  # at which progress


class Mask(NamedTuple):
    """1 where it is known, else 0: of the new video frames [K, F, h, w], and of the reference, a scalar."""

    frames: Tensor
    reference: Tensor


def joined(progress: float, joins: Mapping[str, float]) -> Soup:
    """The tasks that have joined by then, in the proportions of the whole soup."""
    present = {task: share for task, share in SOUP.items() if joins[task] <= progress}
    return {task: share / sum(present.values()) for task, share in present.items()}


def hard_to_easy(progress: float) -> Soup:
    return joined(progress, JOINS)


def draw_task(soup: Soup, rng: np.random.Generator) -> str:
    return str(rng.choice(list(soup), p=list(soup.values())))


def mask_of(task: str, shape: tuple[int, int, int, int], rng: np.random.Generator) -> Mask:
    """Of a sequence of `shape` [K, F, h, w]."""
    frames, reference = torch.zeros(shape), torch.tensor(float(task != "t2v"))
    if task == "lipsync":
        frames += 1.0 - mouth_mask(shape[-1])
    elif task == "flf2v":  # the last picture may come with any video frame of a chunk, and is there until the chunk ends
        frames[int(rng.integers(shape[0])), int(rng.integers(shape[1])) :] = 1.0
    return Mask(frames, reference)
