"""Videos longer than a window, in both published ways.

Pixel windows: each window continues from the last frames of the finished video and is blended into it. Latent windows: one
latent for everything, denoised step by step in overlapping windows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from model.echomimic.conditioning import to_bytes
from model.echomimic.denoise import Conditions, Predict
from model.echomimic.framing import num_latents, whole_frames
from model.echomimic.samplers import FlowEuler

OVERLAP = 8  # frames, or latent frames
STEPS_PER_LATENT = 8  # 50 Hz audio features a latent frame


class Span(NamedTuple):
    start: int
    length: int

    @property
    def audio(self) -> slice:
        """50 Hz feature steps of these video frames."""
        return slice(2 * self.start, 2 * (self.start + self.length))


# Given the window and the frames that it starts with (uint8 [3, 8, H, W]; none for the first), its video [3, F, H, W] in 0..1.
Generate = Callable[[Span, Tensor | None], Tensor]


def pixel_spans(total: int, window: int, overlap: int = OVERLAP) -> list[Span]:
    """One where everything fits. The last is cut to whole latent frames: up to three frames at the end may be missing."""
    window = whole_frames(window)
    if total > window and window <= overlap:
        raise ValueError(f"window must be above the overlap of {overlap} frames, got {window}")
    spans, start = [], 0
    while start + window < total:
        spans.append(Span(start, window))
        start += window - overlap
    return [*spans, Span(start, whole_frames(total - start))]


def slide(generate: Generate, spans: list[Span], overlap: int = OVERLAP) -> Tensor:
    """The stitched video [3, F, H, W], as long as the spans reach."""
    video = generate(spans[0], None)
    weight = torch.linspace(0, 1, overlap).view(1, -1, 1, 1)
    for span in spans[1:]:
        new = generate(span, to_bytes(video[:, -overlap:]))
        blended = video[:, -overlap:] * (1 - weight) + new[:, :overlap] * weight
        video = torch.cat((video[:, :-overlap], blended, new[:, overlap:]), dim=1)
    return video


def latent_spans(total: int, window: int, overlap: int) -> list[Span]:
    """In latent frames. One window where everything fits, which the release does not manage."""
    if window <= overlap:
        raise ValueError(f"window must be above the overlap of {overlap} latent frames, got {window}")
    spans, start = [], 0
    while start + window < total:
        spans.append(Span(start, window))
        start += window - overlap
    return [*spans, Span(start, total - start)]


def denoise_in_windows(
    predict: Predict, sampler: FlowEuler, x: Tensor, conditions: Conditions, *, window_frames: int, overlap: int = OVERLAP,
    observe: Callable[[Tensor, Tensor, Tensor, Tensor], None] | None = None,
    after_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:  # fmt: skip
    """Preview only, Euler only: other samplers' histories would mix the windows.

    Every window is told that it begins with the reference picture, as released. `observe` is told each window's latent, audio,
    flow and stepped latent, `after_step` every step's number and latent.
    """
    spans = latent_spans(x.shape[2], num_latents(window_frames), overlap)
    weight = torch.linspace(0, 1, overlap, device=x.device).view(1, 1, -1, 1, 1)
    for step, timestep in enumerate(sampler.timesteps):
        following, previous = x.clone(), None
        for span in spans:
            part = x[:, :, span.start : span.start + span.length]
            own = _of_window(conditions, span, last=span is spans[-1])
            v = predict(part, timestep.to(x.device), step, own)
            stepped = sampler.step(step, part, v)
            if observe is not None:
                observe(part, own.audio, v, stepped)
            placed = stepped
            if previous is not None and step > 0:
                shared = stepped[:, :, :overlap] * weight + previous[:, :, -overlap:] * (1 - weight)
                placed = torch.cat((shared, stepped[:, :, overlap:]), dim=2)
            following[:, :, span.start : span.start + span.length] = placed
            previous = stepped
        x = following
        if after_step is not None:
            after_step(step, x)
    return x


def _of_window(conditions: Conditions, span: Span, last: bool) -> Conditions:
    end = None if last else STEPS_PER_LATENT * (span.start + span.length)
    return replace(conditions, y=conditions.y[:, :, : span.length], audio=conditions.audio[:, STEPS_PER_LATENT * span.start : end])
