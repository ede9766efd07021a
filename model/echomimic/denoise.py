"""From noise to latents: what either variant asks the transformer at a step, and the loop over the steps.

Legend: B batch, C channels, T latent frames, h w latent pixels, L tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from model.echomimic.dit import EchoMimicDiT, StepCache
from model.echomimic.guidance import combine_flash, combine_preview, dynamic_scale, negative_factor, phda_gains, released_negative_factor
from model.echomimic.samplers import Sampler


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Of one video or window, a batch of one."""

    y: Tensor  # [1, 20, T, h, w]
    prompt: Tensor  # [L, text width], valid tokens only
    negative: Tensor  # the same
    image: Tensor  # [1, 257, image width]; zeros where no picture is given
    audio: Tensor  # as the variant's transformer takes it
    face_mask: Tensor | None = None  # [1, tokens of a latent frame], preview


@dataclass(frozen=True, slots=True, kw_only=True)
class Guidance:
    """In flash the text scale is only a switch: above 1, sound is guided. Dynamic and negative scales are preview's."""

    text_scale: float
    audio_scale: float
    dynamic: bool = False
    negative_scale: float = 1.0
    negative_steps: int = 0
    negative_grows: bool = False  # as released
    phda: bool = False  # branch weights of the paper's figure; the release has none

    @property
    def on(self) -> bool:
        return self.text_scale > 1.0


class Predict(Protocol):
    def __call__(self, x: Tensor, timestep: Tensor, step: int, conditions: Conditions) -> Tensor:
        """The guided flow at a latent."""


@dataclass(slots=True)
class PreviewPredict:
    """One forward of three rows: negative text without sound, text without sound, text with sound."""

    dit: EchoMimicDiT
    guidance: Guidance
    num_steps: int
    cache: StepCache | None = None

    def __call__(self, x: Tensor, timestep: Tensor, step: int, conditions: Conditions) -> Tensor:
        c, guidance = conditions, self.guidance
        rows = 3 if guidance.on else 1
        factor = released_negative_factor if guidance.negative_grows else negative_factor
        negative = c.negative * factor(step, guidance.negative_scale, guidance.negative_steps)
        silent = torch.zeros_like(c.audio)
        out = self.dit(
            _rows(x, rows), _rows(c.y, rows), timestep.expand(rows), image_BLC=_rows(c.image, rows),
            text=[negative, c.prompt, c.prompt] if rows == 3 else [c.prompt],
            audio=torch.cat((silent, silent, c.audio)) if rows == 3 else c.audio,
            face_mask_BN=None if c.face_mask is None else _rows(c.face_mask, rows),
            gains=phda_gains(float(timestep)) if guidance.phda else None, cache=self.cache,
        )  # fmt: skip
        if rows == 1:
            return out
        scales = (guidance.text_scale, guidance.audio_scale)
        if guidance.dynamic:
            scales = (dynamic_scale(scales[0], step, self.num_steps), dynamic_scale(scales[1], step, self.num_steps))
        return combine_preview(out[:1], out[1:2], out[2:], *scales)


@dataclass(slots=True)
class FlashPredict:
    """Two forwards, with sound and without, in this order: a shared cache depends on it."""

    dit: EchoMimicDiT
    guidance: Guidance
    num_steps: int
    cache: StepCache | None = None
    silent_cache: StepCache | None = None
    skip_ratio: float = 0.0  # of the last steps that are not guided

    def __call__(self, x: Tensor, timestep: Tensor, step: int, conditions: Conditions) -> Tensor:
        full = self._pass(x, timestep, conditions, self.cache)
        if not self.guidance.on or (self.skip_ratio and step >= self.num_steps * (1 - self.skip_ratio)):
            return full
        quiet = replace(conditions, audio=torch.zeros_like(conditions.audio))
        return combine_flash(self._pass(x, timestep, quiet, self.silent_cache), full, self.guidance.audio_scale)

    def _pass(self, x: Tensor, timestep: Tensor, c: Conditions, cache: StepCache | None) -> Tensor:
        gains = phda_gains(float(timestep)) if self.guidance.phda else None
        return self.dit(x, c.y, timestep[None], text=[c.prompt], image_BLC=c.image, audio=c.audio, gains=gains, cache=cache)


def denoise(
    predict: Predict, sampler: Sampler, x: Tensor, conditions: Conditions, observe: Callable[[int, Tensor], None] | None = None
) -> Tensor:
    """The clean latent. `observe` is told every step's number and latent; what it raises ends the work."""
    for step, timestep in enumerate(sampler.timesteps):
        x = sampler.step(step, x, predict(x, timestep.to(x.device), step, conditions))
        if observe is not None:
            observe(step, x)
    return x


def _rows(value: Tensor, rows: int) -> Tensor:
    return value.repeat(rows, *(1,) * (value.dim() - 1))
