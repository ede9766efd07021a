"""The rolling window with its cache against the same computation done in parallel, and its guarantees to the scheduler."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from model.conditions import image_tokens, masked_video
from model.config import PRESENTER_DIT, DiTConfig, VAEConfig, WindowConfig
from model.dit import DiT
from model.text import TEXT_TOKENS, StyleEncoder
from model.vae import ReferenceVAE
from model.window import Known, RollingWindow, WindowState

TINY: DiTConfig = dataclasses.replace(
    PRESENTER_DIT, latent_channels=8, image_dim=8, patch=2, dim=48, ffn_dim=64, num_heads=2, num_layers=2, freq_dim=16, text_dim=6,
    audio_dim=5, grid=4,
)
TINY_VAE = VAEConfig(patch=16, time_stride=4, frame_channels=2, widths=(4, 6, 8), grid=4)
SIZE = 64
QUIET = torch.zeros(TINY.audio_tokens, TINY.audio_dim)


@pytest.fixture
def dit() -> DiT:
    torch.manual_seed(0)
    network = DiT(TINY).eval()
    torch.nn.init.normal_(network.head.head.weight, std=0.1)
    torch.nn.init.normal_(network.mean_latent.maps, std=0.02)
    return network


@pytest.fixture
def vae() -> ReferenceVAE:
    torch.manual_seed(0)
    return ReferenceVAE(TINY_VAE).eval()


def picture(seed: int = 5) -> torch.Tensor:
    return torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def opened(window: RollingWindow, vae: ReferenceVAE, still: torch.Tensor, text: torch.Tensor, seed: int) -> WindowState:
    with torch.inference_mode():
        reference = vae.reference(still[None])
        anchor = vae.encode_still(reference)[0]
        return window.open(anchor, anchor, image_tokens(reference.coarse)[0], text, seed)


def conditions(num_frames: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    audio = torch.randn(num_frames, TINY.audio_tokens, TINY.audio_dim, generator=generator)
    return audio, torch.randn(num_frames, TINY.control_dim, generator=generator)


def roll(
    window: RollingWindow, state: WindowState, audio: torch.Tensor, control: torch.Tensor, known: list[Known | None] | None = None
) -> tuple[torch.Tensor, list[WindowState]]:
    latents, states = [], [state]
    for a, c, k in zip(audio, control, known or [None] * len(audio), strict=True):
        latent, (state,) = window.advance([state], a[None], c[None], known=[k])
        latents.append(latent[0])
        states.append(state)
    return torch.stack(latents), states


@pytest.mark.parametrize("share", [0.0, 0.6])
def test_cached_window_equals_parallel_sequence(dit: DiT, vae: ReferenceVAE, share: float) -> None:
    """Frames made one by one with cached keys equal the training pass that sees all of them at once, whatever is known of them."""
    from model.training.sequences import Batch, SequencePass

    text = StyleEncoder(TINY.text_dim)
    window = RollingWindow(dit, WindowConfig(context=2, new=1, sigmas=(1.0,), context_sigma=0.02, guidance=1.0), QUIET)
    still = picture()
    audio, control = conditions(5)
    generator = torch.Generator().manual_seed(9)
    where = (torch.rand(5, 4, 4, 4, generator=generator) < share).float()
    told = torch.randn(5, TINY.latent_channels, 4, 4, generator=generator)
    with torch.inference_mode():
        anchor = vae.encode_still(vae.reference(still[None]))[0]
    known: list[Known | None] = [Known(masked_video(anchor, one, at, vae.latent_std), at) for one, at in zip(told, where, strict=True)]
    latents, _ = roll(window, opened(window, vae, still, text.encode("smiling")[0].detach(), 3), audio, control, known)
    noise = torch.stack([torch.randn(latents.shape[1:], generator=torch.Generator().manual_seed(3 * 1_000_003 + i)) for i in range(5)])
    ids = torch.tensor([[2] + [0] * (TEXT_TOKENS - 1)])
    with torch.inference_mode():
        reference = vae.reference(still[None])
        stills, image = vae.encode_still(reference), image_tokens(reference.coarse)
        batch = Batch(told[None], stills, image, control[None], audio[None], ids, where[None], torch.ones(1), torch.zeros(1, 20))
        out = SequencePass(dit, text)(batch, noise[None], torch.ones(1, 5), latents[None, :-1], torch.full((1, 1), 0.02))
    torch.testing.assert_close(out[0], latents, rtol=1e-4, atol=1e-4)


def test_batched_sessions_do_not_mix(dit: DiT, vae: ReferenceVAE) -> None:
    """Two sessions stepped together give what each gives alone."""
    window = RollingWindow(dit, WindowConfig(context=2, new=1, sigmas=(1.0, 0.7), context_sigma=0.02, guidance=1.0), QUIET)
    text = torch.zeros(TEXT_TOKENS, TINY.text_dim)
    audio, control = conditions(2)
    states = [opened(window, vae, r, text, i) for i, r in enumerate((picture(1), picture(2)))]
    together, _ = window.advance(states, audio, control)
    alone = torch.cat([window.advance([s], audio[i : i + 1], control[i : i + 1])[0] for i, s in enumerate(states)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_going_on_from_an_older_state_repeats_exactly(dit: DiT, vae: ReferenceVAE) -> None:
    """A rewind is bit-identical: states are immutable and noise depends on the index alone."""
    window = RollingWindow(dit, WindowConfig(context=2, new=1, sigmas=(1.0, 0.7), context_sigma=0.02, guidance=1.0), QUIET)
    audio, control = conditions(6)
    state = opened(window, vae, picture(), torch.zeros(TEXT_TOKENS, TINY.text_dim), 1)
    latents, states = roll(window, state, audio, control)
    again, _ = roll(window, states[3], audio[3:], control[3:])
    assert torch.equal(latents[3:], again)


def test_state_does_not_grow(dit: DiT, vae: ReferenceVAE) -> None:
    window = RollingWindow(dit, WindowConfig(context=2, new=1, sigmas=(1.0,), context_sigma=0.02, guidance=1.0), QUIET)
    audio, control = conditions(12)
    state = opened(window, vae, picture(), torch.zeros(TEXT_TOKENS, TINY.text_dim), 1)
    _, states = roll(window, state, audio, control)
    assert {s.keys.shape for s in states} == {states[0].keys.shape}
    assert torch.equal(states[-1].keys[0], states[0].keys[0])


def test_guidance_leads_away_from_silence(dit: DiT, vae: ReferenceVAE) -> None:
    """With guidance g a frame is what it is in silence plus g times what the sound changes; of silence nothing changes."""
    audio, control = conditions(1)
    shown = {}
    for guidance in (1.0, 1.5):
        window = RollingWindow(dit, WindowConfig(context=2, new=1, sigmas=(1.0,), context_sigma=0.02, guidance=guidance), QUIET)
        state = opened(window, vae, picture(), torch.zeros(TEXT_TOKENS, TINY.text_dim), 1)
        shown[guidance] = [window.advance([state], sound, control)[0] for sound in (QUIET[None], audio)]
    quiet, spoken = shown[1.0]
    torch.testing.assert_close(shown[1.5][0], quiet, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(shown[1.5][1], quiet + 1.5 * (spoken - quiet), rtol=1e-4, atol=1e-4)
