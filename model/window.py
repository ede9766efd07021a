"""The rolling window `[anchor | context | new]` over a causal DiT with cached keys and values.

The anchor is the reference latent: never generated, never replaced, so identity has nowhere to drift to. The context is what was
sent last; overlapping it is what makes seams invisible. A finished latent frame is passed once more, clean, to leave its keys and
values behind; that pass shares the first denoising pass of the frame after it, so it costs half of one.
Keys are cached unrotated and rotated at positions local to the window, so hour ten computes
exactly what minute one did. State is immutable: going on from an older one is how an interrupt rewinds.
Legend: B sessions, C latent channels, h w latent pixels, L layers, S tokens a frame, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from model.attention import ContextFn, StaticKeys
from model.config import WindowConfig
from model.sampler import sample_renoise


@dataclass(frozen=True, slots=True)
class Frame:
    """A latent frame with what it was made from: latent [C, h, w], audio [tokens, audio_dim], control [control_dim], its noise."""

    latent: Tensor
    audio: Tensor
    control: Tensor
    sigma: float


@dataclass(frozen=True, slots=True)
class WindowState:
    """fill [C, h, w], the masked-video latent where nothing is known; static, the keys and values of text and image, a batch of one; last,
    the newest frame, whose keys are not cached yet; keys and values [1 + context, L, S, D] of the frames it saw, anchor first, then
    oldest first."""

    fill: Tensor
    static: StaticKeys
    last: Frame
    keys: Tensor
    values: Tensor
    seed: int
    index: int


class Known(NamedTuple):
    """What is known of a new frame: its masked-video latent [C, h, w], and of its video frames 1 where they are known, else 0 [M, h, w]."""

    y: Tensor
    where: Tensor


class _Row(NamedTuple):
    """One row of every session: x and its masked-video latent y [B, C, h, w], known [B, M, h, w] 1 or 0, sigma [B],
    audio [B, tokens, audio_dim], control [B, control_dim]."""

    x: Tensor
    y: Tensor
    known: Tensor
    sigma: Tensor
    audio: Tensor
    control: Tensor


class _Alone:
    """The anchor's own pass: it stands in for all frames of its window."""

    def __init__(self, frames: int) -> None:
        self._frames = frames
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def __call__(self, layer: int, k_BSD: Tensor, v_BSD: Tensor) -> tuple[Tensor, Tensor]:
        self.keys.append(k_BSD)
        self.values.append(v_BSD)
        return k_BSD.repeat(1, self._frames + 1, 1), v_BSD.repeat(1, self._frames + 1, 1)


class _CleanAndNoisy:
    """The first pass: a session's rows are its last frame, clean, then the new one once or more, which sees the last."""

    def __init__(self, keys_BFLSD: Tensor, values_BFLSD: Tensor) -> None:
        self._keys, self._values = keys_BFLSD, values_BFLSD
        self._new: tuple[list[Tensor], list[Tensor]] = ([], [])

    def __call__(self, layer: int, k_BSD: Tensor, v_BSD: Tensor) -> tuple[Tensor, Tensor]:
        return self._join(self._keys[:, :, layer], k_BSD, 0), self._join(self._values[:, :, layer], v_BSD, 1)

    def _join(self, cached_BFSD: Tensor, rows: Tensor, which: int) -> Tensor:
        clean, *noisy = rows.unflatten(0, (len(cached_BFSD), -1)).unbind(1)
        self._new[which].append(clean)
        for_clean = torch.cat((cached_BFSD.flatten(1, 2), clean), dim=1)
        for_noisy = torch.cat((cached_BFSD[:, 0], cached_BFSD[:, 2:].flatten(1, 2), clean), dim=1)
        return torch.stack((for_clean, *(torch.cat((for_noisy, each), dim=1) for each in noisy)), dim=1).flatten(0, 1)

    def moved_on(self) -> tuple[Tensor, Tensor]:
        """The caches with the last frames in and the oldest of the context out."""
        new = (torch.stack(kept, dim=1)[:, None] for kept in self._new)
        caches = (self._keys, self._values)
        keys, values = (torch.cat((c[:, :1], c[:, 2:], n), dim=1) for c, n in zip(caches, new, strict=True))
        return keys, values


class _Cached:
    """Any later pass: only the new frames are computed, once or more."""

    def __init__(self, keys_BFLSD: Tensor, values_BFLSD: Tensor) -> None:
        self.keys, self.values = keys_BFLSD, values_BFLSD

    def __call__(self, layer: int, k_BSD: Tensor, v_BSD: Tensor) -> tuple[Tensor, Tensor]:
        times = len(k_BSD) // len(self.keys)
        keys, values = (kept[:, :, layer].flatten(1, 2).repeat_interleave(times, dim=0) for kept in (self.keys, self.values))
        return torch.cat((keys, k_BSD), dim=1), torch.cat((values, v_BSD), dim=1)


class WindowConditions(Protocol):
    """What a transformer is told about a single latent frame: sizes of it."""

    @property
    def mask_channels(self) -> int: ...
    @property
    def audio_tokens(self) -> int: ...
    @property
    def audio_dim(self) -> int: ...
    @property
    def control_dim(self) -> int: ...


class WindowTransformer(Protocol):
    """What the window needs of a causal transformer: `DiT`, or another family that answers as it does."""

    @property
    def config(self) -> WindowConditions: ...
    @property
    def patch_embedding(self) -> nn.Module: ...
    def static_keys(self, text_BLC: Tensor, image_BLC: Tensor) -> StaticKeys: ...
    def __call__(
        self, x_BTCHW: Tensor, mask_BTMHW: Tensor, y_BTCHW: Tensor, t_BT: Tensor, *, static: StaticKeys, audio_BTLC: Tensor,
        control_BTC: Tensor, context: ContextFn, context_frames: int,
    ) -> Tensor: ...  # fmt: skip


class RollingWindow:
    """Steps many sessions at once. All tensors on the network's device, in its dtype."""

    def __init__(self, dit: WindowTransformer, config: WindowConfig, quiet_LC: Tensor) -> None:
        """quiet_LC: audio tokens of silence, what guidance leads away from."""
        self.dit, self.config = dit, config
        weight = next(dit.patch_embedding.parameters())
        self.dtype, self.device = weight.dtype, weight.device
        self.quiet = quiet_LC.to(self.device, self.dtype)
        self.frames = 1 + config.context

    @torch.inference_mode()
    def open(self, anchor_CHW: Tensor, fill_CHW: Tensor, image_MC: Tensor, text_LC: Tensor, seed: int) -> WindowState:
        """A session that has shown nothing yet: the anchor, the portrait's own latent, stands in for the missing context."""
        anchor, fill, image, text = (t.to(self.device, self.dtype) for t in (anchor_CHW, fill_CHW, image_MC, text_LC))
        config = self.dit.config
        last = Frame(anchor, anchor.new_zeros(config.audio_tokens, config.audio_dim), anchor.new_zeros(config.control_dim), 0.0)
        static = self.dit.static_keys(text[None], image[None])
        alone = _Alone(self.frames)
        self._forward([self._known([last])], static, alone)
        keys, values = (torch.stack(kept, dim=1).repeat(self.frames, 1, 1, 1) for kept in (alone.keys, alone.values))
        return WindowState(fill, static, last, keys, values, seed, 0)

    @torch.inference_mode()
    def advance(
        self, states: Sequence[WindowState], audio_BLC: Tensor, control_BC: Tensor, sigmas: Sequence[float] | None = None,
        known: Sequence[Known | None] | None = None,
    ) -> tuple[Tensor, list[WindowState]]:  # fmt: skip
        """The next latent frame of each session [B, C, h, w] and the states after it.

        audio [B, tokens, audio_dim] and control [B, control_dim] are those of exactly the new frames; known, what is known of each.
        """
        fill = torch.stack([s.fill for s in states])
        where = fill.new_zeros(len(states), self.dit.config.mask_channels, *fill.shape[2:])
        for i, told in enumerate(known or ()):
            if told is not None:
                fill[i], where[i] = told
        static = StaticKeys(*(torch.cat(parts) for parts in zip(*(s.static for s in states), strict=True)))
        audio, control = audio_BLC.to(self.device, self.dtype), control_BC.to(self.device, self.dtype)
        first = _CleanAndNoisy(torch.stack([s.keys for s in states]), torch.stack([s.values for s in states]))
        later: _Cached | None = None
        generators = [torch.Generator().manual_seed(s.seed * 1_000_003 + s.index) for s in states]
        clean = self._known([s.last for s in states])
        level = fill.new_ones(len(states))
        heard = [audio] if self.config.guidance == 1.0 else [audio, self.quiet.expand_as(audio)]

        def noise() -> Tensor:
            drawn = [torch.randn(fill.shape[1:], generator=g) for g in generators]
            return torch.stack(drawn).to(self.device, self.dtype)

        def denoise(x: Tensor, sigma: float) -> Tensor:
            nonlocal later
            new = [_Row(x, fill, where, level * sigma, tokens, control) for tokens in heard]
            if later is not None:
                spoken, *quiet = self._forward(new, static, later)
            else:
                _, spoken, *quiet = self._forward([clean, *new], static, first)
                later = _Cached(*first.moved_on())
            # Away from silence (audio guidance of EchoMimicV3): a regression says everything a little too softly.
            return fill + (quiet[0] + self.config.guidance * (spoken - quiet[0]) if quiet else spoken)

        latent = sample_renoise(denoise, noise, sigmas or self.config.sigmas)
        assert later is not None
        keys, values = later.keys, later.values
        sigma = self.config.context_sigma
        last = [Frame(*parts, sigma) for parts in zip(latent, audio, control, strict=True)]
        after = [
            replace(s, last=last[i], keys=keys[i], values=values[i], index=s.index + 1) for i, s in enumerate(states)
        ]
        return latent, after

    def _known(self, frames: Sequence[Frame]) -> _Row:
        latent = torch.stack([f.latent for f in frames])
        sigma = torch.tensor([f.sigma for f in frames]).to(latent)
        audio, control = torch.stack([f.audio for f in frames]), torch.stack([f.control for f in frames])
        where = latent.new_ones(len(frames), self.dit.config.mask_channels, *latent.shape[2:])
        return _Row(latent, latent, where, sigma, audio, control)

    def _forward(self, rows: Sequence[_Row], static: StaticKeys, context: ContextFn) -> tuple[Tensor, ...]:
        """One pass over single frames, a session's rows side by side; the network's output [B, C, h, w] for each row."""
        x, y, known, level, audio, control = (torch.stack(column, dim=1).flatten(0, 1)[:, None] for column in zip(*rows, strict=True))
        out = self.dit(
            x, known, y, level, static=static, audio_BTLC=audio, control_BTC=control, context=context, context_frames=self.frames
        )
        return out[:, 0].unflatten(0, (-1, len(rows))).unbind(1)
