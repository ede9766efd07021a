"""Which model runs, behind one interface: the streamer and the renderer never know which it is.

Importable without torch, so that the command line and the media process can name presets and their options.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from model.errors import ConfigError
from model.geometry import Geometry

if TYPE_CHECKING:
    import numpy as np

PUBLISHED: dict[str, Literal["preview", "flash"]] = {"echomimic-v3-preview": "preview", "echomimic-v3-flash": "flash"}
PRESETS = ("presenter", *PUBLISHED)

Attention = Literal["bidirectional", "causal"]
Compile = Literal["off", "on", "graphs"]
TOKEN_PIXELS = 16


class Pipeline(Protocol):
    """A loaded preset. States are opaque and immutable, so a batch may mix sessions at any point of their lives."""

    @property
    def geometry(self) -> Geometry: ...
    def open(self, portrait: np.ndarray, *, seed: int = 0, prompt: str = "") -> Any:
        """A new session from a prepared portrait, uint8 RGB [height, width, 3]."""

    def step(self, states: Sequence[Any], audio: Sequence[np.ndarray], activity: Sequence[str]) -> tuple[list[np.ndarray], list[Any]]:
        """One chunk for each session.

        audio: int16 [geometry.step_samples_16k], the chunk's own sound and the look-ahead; activity: idle, listening, speaking.
        Returns frames, uint8 I420 [chunk_frames, H*3//2, W], and the state after the chunk, one a session.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveOptions:
    """How a published preset runs live. None leaves a number at the preset's own. Raises ValueError with option, value and range."""

    width: int = 512
    height: int = 512
    context: int = 2  # latent frames that each window repeats from what was sent
    new: int = 3  # latent frames a chunk; causal: always one
    attention: Attention | None = None  # None: causal with an adapter, bidirectional without
    adapter: Path | None = None  # a student's LoRA
    tiny_decoder: Path | None = None  # taew2_1 instead of the full decoder
    compile: Compile = "off"
    text_guidance: float | None = None
    audio_guidance: float | None = None
    prompt: str = "A person looks into the camera and talks."
    negative_prompt: str | None = None

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            value = getattr(self, name)
            if not 64 <= value <= 2048 or value % TOKEN_PIXELS:
                raise ValueError(f"{name} = {value} must be 64 to 2048 and a multiple of {TOKEN_PIXELS}")
        for name, high in (("context", 6), ("new", 8)):
            if not 1 <= getattr(self, name) <= high:
                raise ValueError(f"{name} = {getattr(self, name)} is out of range: 1 to {high}")

    @property
    def is_causal(self) -> bool:
        return self.attention == "causal" or (self.attention is None and self.adapter is not None)

    @property
    def chunk_latents(self) -> int:
        return 1 if self.is_causal else self.new


def check_preset(preset: str) -> None:
    if preset not in PRESETS:
        raise ConfigError("unknown_preset", f"preset {preset!r} is not known", f"Use one of {', '.join(PRESETS)}.")


def load_pipeline(
    *, preset: str = "presenter", weights: Path | None = None, device: str = "auto", steps: int | None = None,
    live: LiveOptions | None = None,
) -> Pipeline:  # fmt: skip
    """Takes seconds. Raises ModelError: what is missing, or an option that the preset does not have."""
    check_preset(preset)
    live = live or LiveOptions()
    if preset in PUBLISHED:
        if weights is None:
            raise ConfigError("weights_missing", f"preset {preset} needs --weights DIR", "docs/echomimic_v3.md says what must be in it.")
        from model.echomimic.live import LivePipeline

        return LivePipeline.load(PUBLISHED[preset], weights, device=device, steps=steps, options=live)
    if live != LiveOptions():
        raise ConfigError("option_of_another_preset", "options of echomimic-v3-* were given to preset presenter", "Leave them out.")
    from model.pipeline import AvatarPipeline

    return AvatarPipeline.load(weights=weights, device=device, steps=steps)
