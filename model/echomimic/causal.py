"""The published transformer as the rolling window asks it: one latent frame a row, the keys of earlier ones from the cache.

For students that were trained causally from the published weights. A frame is told as in the masked video of those: a known one
by itself and mask 1, a new one by the latent of grey and mask 0. The anchor hears nothing: its audio tokens are zero.
Legend: B rows, T latent frames of a row, C latent channels, h w latent pixels, L M tokens, D width, N tokens of a latent frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.attention import BranchGains, ContextFn, StaticKeys
from model.config import WindowConfig
from model.dit import static_keys
from model.echomimic.audio_tokens import NEIGHBOURS, PREVIEW_TOKENS
from model.echomimic.denoise import Conditions
from model.echomimic.dit import EchoMimicDiT
from model.window import RollingWindow, WindowState

TIMESTEPS = 1000.0
HEARD_LATENTS = 3  # the shortest window whose last frame hears in full: the first two lie at its beginning


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameConditions:
    """What a latent frame is told. `control_dim`: how much each token hears, the face mask of preview."""

    mask_channels: int
    audio_tokens: int
    audio_dim: int
    control_dim: int


class CausalDiT(nn.Module):
    """Answers as `model.dit.DiT` does; conditions are embedded already."""

    def __init__(self, dit: EchoMimicDiT, frame_tokens: int) -> None:
        super().__init__()
        is_preview = dit.config.variant == "preview"
        self.dit = dit
        self.config = FrameConditions(
            mask_channels=dit.config.mask_channels, audio_tokens=PREVIEW_TOKENS if is_preview else dit.config.audio_tokens,
            audio_dim=dit.config.dim, control_dim=frame_tokens if is_preview else 0,
        )  # fmt: skip

    @property
    def patch_embedding(self) -> nn.Module:
        return self.dit.patch_embedding

    def static_keys(self, text_BLD: Tensor, image_BMD: Tensor) -> StaticKeys:
        return static_keys(self.dit.blocks, text_BLD, image_BMD)

    def forward(
        self, x_BTChw: Tensor, mask_BTMhw: Tensor, y_BTChw: Tensor, t_BT: Tensor, *, static: StaticKeys, audio_BTLC: Tensor,
        control_BTC: Tensor, context: ContextFn, context_frames: int,
    ) -> Tensor:  # fmt: skip
        """What to add to y to make it clean; the published flow v leads from x at level t to x - t v."""
        told = torch.cat((mask_BTMhw, y_BTChw), dim=2).transpose(1, 2)
        gains = BranchGains(1.0, 1.0, control_BTC.flatten(1)[:, :, None]) if self.config.control_dim else None
        v = self.dit.flow(
            x_BTChw.transpose(1, 2), told, t_BT[:, 0] * TIMESTEPS, static=lambda layer: StaticKeys(*(kept[:, layer] for kept in static)),
            audio_BTLD=audio_BTLC, gains=gains, context=context, context_frames=context_frames,
        ).transpose(1, 2)  # fmt: skip
        level = t_BT[:, :, None, None, None].float()
        return (x_BTChw.float() - level * v.float() - y_BTChw.float()).to(x_BTChw.dtype)


@dataclass(frozen=True, slots=True)
class CausalState:
    window: WindowState
    heard: Tensor  # [N] what each place hears (preview), or [0]


class CausalWindow:
    """Steps many sessions at once, each by one latent frame."""

    num_new = 1
    window_latents = HEARD_LATENTS

    def __init__(self, causal: CausalDiT, config: WindowConfig) -> None:
        self._dit, self._causal = causal.dit, causal
        self._window = RollingWindow(causal, config, self._silence())

    @torch.inference_mode()
    def open(self, told: Conditions, known: Tensor, seed: int) -> CausalState:
        """`known` [1, C, K, h, w] begins with the picture's latent; the last frame of `told.y` says how an unknown one is told."""
        text, image = self._dit.text_tokens([told.prompt]), self._dit.img_emb(told.image)
        unknown = told.y[0, self._causal.config.mask_channels :, -1]
        count = self._causal.config.control_dim
        heard = known.new_ones(count) if told.face_mask is None else told.face_mask[0].to(known)
        return CausalState(self._window.open(known[0, :, 0], unknown, image[0], text[0], seed), heard)

    @torch.inference_mode()
    def advance(self, states: Sequence[CausalState], features: Sequence[Tensor]) -> tuple[list[Tensor], list[CausalState]]:
        """The new latent of each session [1, C, 1, h, w] and the states after them; features are those of HEARD_LATENTS, its own last."""
        audio = torch.cat([self._dit.audio_tokens(own)[:, -1] for own in features])
        heard = torch.stack([state.heard for state in states])
        latents, windows = self._window.advance([state.window for state in states], audio, heard)
        after = [CausalState(window, state.heard) for window, state in zip(windows, states, strict=True)]
        return [latent[None, :, None] for latent in latents], after

    def _silence(self) -> Tensor:
        """Tokens of null sound, as the published guidance has it: features of zero."""
        config, weight = self._dit.config, self._dit.patch_embedding.weight
        frames = 4 * HEARD_LATENTS - 3
        steps = (2 * (frames + 2),) if config.variant == "preview" else (frames, NEIGHBOURS, config.audio_layers)
        with torch.inference_mode():
            return self._dit.audio_tokens(weight.new_zeros(1, *steps, config.audio_dim))[0, -1]
