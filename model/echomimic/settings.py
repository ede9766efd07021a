"""How either variant is run: by default with the published scripts' numbers, without the defects of their code.

`compat` brings back those defects that change the picture; docs/echomimic_v3.md lists them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from model.echomimic.config import Variant
from model.echomimic.denoise import Guidance
from model.echomimic.framing import num_latents, whole_frames
from model.echomimic.long_video import OVERLAP
from model.echomimic.samplers import KINDS, Sampler, make_sampler

LongVideo = Literal["pixel", "latent"]
SHIFT = 5.0
# What the published negative prompts are about, in words of our own.
NEGATIVE = "Unclear or unnatural gestures, blurry, twisted or fused hands and fingers, fast, twitching, exaggerated or repetitive movement."


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Raises ValueError for combinations that cannot be run."""

    variant: Variant
    sampler: str
    num_steps: int
    guidance: Guidance
    cache_threshold: float | None = None  # of TeaCache; None = off
    cache_start: int = 5
    window_frames: int
    long_video: LongVideo | None  # None: one window, whatever is longer is left out
    area: int = 768 * 768
    negative: str = ""
    seed: int = 43
    compat: bool = False

    def __post_init__(self) -> None:
        if self.sampler not in KINDS:
            raise ValueError(f"sampler must be one of {', '.join(KINDS)}, got {self.sampler!r}")
        if self.num_steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.num_steps}")
        if self.cache_threshold is not None and self.num_steps < self.cache_start:
            raise ValueError(f"TeaCache computes the first {self.cache_start} steps: {self.num_steps} steps are too few for it")
        shortest = {None: 5, "pixel": OVERLAP + 5, "latent": 4 * OVERLAP + 1}[self.long_video]
        if whole_frames(self.window_frames) < shortest:
            raise ValueError(f"window must be at least {shortest} frames, got {self.window_frames}")
        if self.long_video == "latent" and (self.variant != "preview" or self.sampler != "flow"):
            raise ValueError(f"latent windows are made for preview with the flow sampler, got {self.variant} with {self.sampler}")

    @property
    def window_latents(self) -> int:
        return num_latents(whole_frames(self.window_frames))

    def make_sampler(self) -> Sampler:
        """DPM++ and UniPC are shifted once; released preview shifts DPM++'s levels twice, to 25."""
        twice = self.sampler == "flow" or (self.compat and self.variant == "preview")
        return make_sampler(self.sampler, self.num_steps, constructor_shift=SHIFT if twice else 1.0, call_shift=SHIFT)

    @property
    def effective_guidance(self) -> Guidance:
        """Latent windows know no scaled negative text."""
        if self.long_video == "latent":
            return replace(self.guidance, negative_scale=1.0)
        return replace(self.guidance, negative_grows=self.compat)


DEFAULTS: dict[Variant, Settings] = {
    "preview": Settings(
        variant="preview", sampler="flow", num_steps=25, window_frames=113, long_video="pixel", negative=NEGATIVE,
        guidance=Guidance(text_scale=4.0, audio_scale=2.9, dynamic=True, negative_scale=1.5, negative_steps=2),
    ),
    "flash": Settings(
        variant="flash", sampler="unipc", num_steps=8, cache_threshold=0.1, window_frames=81, long_video=None,
        guidance=Guidance(text_scale=6.0, audio_scale=3.0),
    ),
}  # fmt: skip
