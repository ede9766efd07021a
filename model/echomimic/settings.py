"""How either variant is run by default: the published scripts' numbers, without the released defects."""

from __future__ import annotations

from dataclasses import dataclass

from model.echomimic.config import Variant
from model.echomimic.denoise import Guidance

CALL_SHIFT = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    sampler: str
    constructor_shift: float
    num_steps: int
    guidance: Guidance
    cache_threshold: float | None  # of TeaCache; None = off
    cache_start: int = 5
    window_frames: int
    area: int = 768 * 768
    compat: bool = False  # repeats the release's shared TeaCache, which loses audio guidance (flash)

    @property
    def uses_cache(self) -> bool:
        """Off, too, where there are no more steps than TeaCache computes anyway."""
        return self.cache_threshold is not None and self.num_steps > self.cache_start


DEFAULTS: dict[Variant, Settings] = {
    "preview": Settings(
        sampler="flow", constructor_shift=5.0, num_steps=25, cache_threshold=None, window_frames=113,
        guidance=Guidance(text_scale=4.0, audio_scale=2.9, dynamic=True, negative_scale=1.5, negative_steps=2),
    ),
    "flash": Settings(
        sampler="unipc", constructor_shift=1.0, num_steps=8, cache_threshold=0.1, window_frames=81,
        guidance=Guidance(text_scale=6.0, audio_scale=3.0),
    ),
}  # fmt: skip
