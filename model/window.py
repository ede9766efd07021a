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
from typing import NamedTuple

import torch
from torch import Tensor

from model.conditions import image_tokens
from model.config import WindowConfig
from model.dit import ContextFn, DiT
from model.sampler import sample_renoise
from model.vae import Reference


@dataclass(frozen=True, slots=True)
class Frame:
    """A latent frame with what it was made from: latent [C, h, w], audio [tokens, audio_dim], control [control_dim], its noise."""

    latent: Tensor
    audio: Tensor
    control: Tensor
    sigma: float


@dataclass(frozen=True, slots=True)
class WindowState:
    """portrait, a batch of one, and its own latent, the anchor [C, h, w]; image [tokens, image_dim]; text [tokens, text_dim]; last, the
    newest frame, whose keys are not cached yet; keys and values [1 + context, L, S, D] of the frames it saw, anchor first, then
    oldest first."""

    portrait: Reference
    anchor: Tensor
    image: Tensor
    text: Tensor
    last: Frame
    keys: Tensor
    values: Tensor
    seed: int
    index: int


class _Session(NamedTuple):
    """What stays the same for a session, batched: anchor [B, C, h, w], image and text tokens [B, tokens, ...]."""

    anchor: Tensor
    image: Tensor
    text: Tensor

    def repeat(self, times: int) -> _Session:
        return _Session(*(torch.cat([part] * times) for part in self))


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
    """The first pass: the batch holds the last frames, clean, then the new ones once or more; each sees the last of its session."""

    def __init__(self, keys_BFLSD: Tensor, values_BFLSD: Tensor) -> None:
        self._keys, self._values = keys_BFLSD, values_BFLSD
        self._new: tuple[list[Tensor], list[Tensor]] = ([], [])

    def __call__(self, layer: int, k_BSD: Tensor, v_BSD: Tensor) -> tuple[Tensor, Tensor]:
        return self._join(self._keys[:, :, layer], k_BSD, 0), self._join(self._values[:, :, layer], v_BSD, 1)

    def _join(self, cached_BFSD: Tensor, rows: Tensor, which: int) -> Tensor:
        clean, *noisy = rows.split(len(cached_BFSD))
        self._new[which].append(clean)
        for_clean = torch.cat((cached_BFSD.flatten(1, 2), clean), dim=1)
        for_noisy = torch.cat((cached_BFSD[:, 0], cached_BFSD[:, 2:].flatten(1, 2), clean), dim=1)
        return torch.cat((for_clean, *(torch.cat((for_noisy, each), dim=1) for each in noisy)))

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
        keys, values = (kept[:, :, layer].flatten(1, 2).repeat(times, 1, 1) for kept in (self.keys, self.values))
        return torch.cat((keys, k_BSD), dim=1), torch.cat((values, v_BSD), dim=1)


class RollingWindow:
    """Steps many sessions at once. All tensors on the network's device, in its dtype."""

    def __init__(self, dit: DiT, config: WindowConfig, quiet_LC: Tensor) -> None:
        """quiet_LC: audio tokens of silence, what guidance leads away from."""
        self.dit, self.config = dit, config
        self.dtype = dit.patch_embedding.weight.dtype
        self.device = dit.patch_embedding.weight.device
        self.quiet = quiet_LC.to(self.device, self.dtype)
        self.frames = 1 + config.context

    @torch.inference_mode()
    def open(self, portrait: Reference, anchor_CHW: Tensor, text_LC: Tensor, seed: int) -> WindowState:
        """A session that has shown nothing yet: the anchor stands in for the missing context."""
        anchor, text = anchor_CHW.to(self.device, self.dtype), text_LC.to(self.device, self.dtype)
        image = image_tokens(portrait.coarse).to(self.device, self.dtype)[0]
        config = self.dit.config
        audio = anchor.new_zeros(config.audio_tokens, config.audio_dim)
        last = Frame(anchor, audio, anchor.new_zeros(config.control_dim), 0.0)
        alone = _Alone(self.frames)
        self._forward(_gather([last]), [last.sigma], 1, _Session(anchor[None], image[None], text[None]), alone)
        keys, values = (torch.stack(kept, dim=1).repeat(self.frames, 1, 1, 1) for kept in (alone.keys, alone.values))
        return WindowState(portrait, anchor, image, text, last, keys, values, seed, 0)

    @torch.inference_mode()
    def advance(
        self, states: Sequence[WindowState], audio_BLC: Tensor, control_BC: Tensor, sigmas: Sequence[float] | None = None
    ) -> tuple[Tensor, list[WindowState]]:
        """The next latent frame of each session [B, C, h, w] and the states after it.

        audio [B, tokens, audio_dim] and control [B, control_dim] are those of exactly the new frames.
        """
        session = _Session(*(torch.stack([getattr(s, name) for s in states]) for name in ("anchor", "image", "text")))
        audio, control = audio_BLC.to(self.device, self.dtype), control_BC.to(self.device, self.dtype)
        first = _CleanAndNoisy(torch.stack([s.keys for s in states]), torch.stack([s.values for s in states]))
        later: _Cached | None = None
        generators = [torch.Generator().manual_seed(s.seed * 1_000_003 + s.index) for s in states]
        clean = _gather([s.last for s in states])
        clean_sigmas = [s.last.sigma for s in states]

        def noise() -> Tensor:
            drawn = [torch.randn(session.anchor.shape[1:], generator=g) for g in generators]
            return torch.stack(drawn).to(self.device, self.dtype)

        heard = [audio] if self.config.guidance == 1.0 else [audio, self.quiet.expand_as(audio)]

        def denoise(x: Tensor, sigma: float) -> Tensor:
            nonlocal later
            new = [(x, tokens, control) for tokens in heard]
            levels = [sigma] * len(states) * len(new)
            if later is not None:
                out = self._forward(_join(new), levels, 0, session.repeat(len(new)), later)
            else:
                out = self._forward(_join([clean, *new]), [*clean_sigmas, *levels], len(states), session.repeat(1 + len(new)), first)
                out = out[len(states) :]
                later = _Cached(*first.moved_on())
            spoken, *quiet = out.split(len(states))
            # Away from silence (audio guidance of EchoMimicV3): a regression says everything a little too softly.
            return session.anchor + (quiet[0] + self.config.guidance * (spoken - quiet[0]) if quiet else spoken)

        latent = sample_renoise(denoise, noise, sigmas or self.config.sigmas)
        assert later is not None
        keys, values = later.keys, later.values
        sigma = self.config.context_sigma
        last = [Frame(*parts, sigma) for parts in zip(latent, audio, control, strict=True)]
        after = [
            replace(s, last=last[i], keys=keys[i], values=values[i], index=s.index + 1) for i, s in enumerate(states)
        ]
        return latent, after

    def _forward(
        self, frames: tuple[Tensor, ...], sigmas: Sequence[float], num_known: int, session: _Session, context: ContextFn
    ) -> Tensor:
        """One pass over single frames [B, ...], of which the first `num_known` are clean; the network's output [B, C, h, w]."""
        x_BCHW, audio_BLC, control_BC = frames
        batch, _, height, width = x_BCHW.shape
        mask = x_BCHW.new_zeros(batch, 1, self.dit.config.mask_channels, height, width)
        mask[:num_known] = 1.0
        y = torch.cat((x_BCHW[:num_known], session.anchor[num_known:]))
        level = torch.tensor(sigmas, device=self.device)[:, None]
        out = self.dit(
            x_BCHW[:, None], mask, y[:, None], level, text_BLC=session.text, image_BLC=session.image,
            audio_BTLC=audio_BLC[:, None], control_BTC=control_BC[:, None], context=context, context_frames=self.frames,
        )  # fmt: skip
        return out[:, 0]


def _gather(frames: Sequence[Frame]) -> tuple[Tensor, Tensor, Tensor]:
    return torch.stack([f.latent for f in frames]), torch.stack([f.audio for f in frames]), torch.stack([f.control for f in frames])


def _join(rows: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return tuple(torch.cat(column) for column in zip(*rows, strict=True))
