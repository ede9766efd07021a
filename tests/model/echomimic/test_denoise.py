"""What the golden pipelines do not reach: repaired defects, the corrected cache, region masks, and refusals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model.echomimic.conditioning import mask_channels, masked_conditioning
from model.echomimic.config import EchoMimicConfig, WanVAEConfig
from model.echomimic.denoise import Conditions, FlashPredict, Guidance, PreviewPredict, denoise
from model.echomimic.dit import EchoMimicDiT
from model.echomimic.long_video import denoise_in_windows, latent_spans, pixel_spans
from model.echomimic.samplers import FlowEuler, make_sampler
from model.echomimic.teacache import TeaCache
from model.echomimic.vae import WanVAE

TINY = {
    "dim": 48, "ffn_dim": 32, "num_heads": 2, "num_layers": 1, "freq_dim": 16, "text_dim": 8, "text_len": 6, "image_dim": 8,
    "audio_dim": 4, "audio_layers": 2, "audio_hidden": 6, "audio_tokens": 3,
}  # fmt: skip


def make(variant: str, num_latents: int) -> tuple[EchoMimicDiT, Conditions, Tensor]:
    torch.manual_seed(0)
    dit = EchoMimicDiT(EchoMimicConfig(variant=variant, **TINY)).eval().requires_grad_(False)
    frames = 4 * num_latents - 3
    conditions = Conditions(
        y=torch.randn(1, 20, num_latents, 4, 4), prompt=torch.randn(3, 8), negative=torch.randn(2, 8), image=torch.randn(1, 5, 8),
        audio=torch.randn(1, 2 * frames, 4) if variant == "preview" else torch.randn(1, frames, 5, 2, 4),
    )  # fmt: skip
    return dit, conditions, torch.randn(1, 16, num_latents, 4, 4)


def test_one_latent_window_is_plain_denoising() -> None:
    """A video as long as a window, or shorter, ends (the release loops for ever, or returns zeros)."""
    dit, conditions, x = make("preview", 3)
    predict = PreviewPredict(dit, Guidance(text_scale=4.0, audio_scale=2.0), 2)
    sampler = make_sampler("flow", 2, constructor_shift=5, call_shift=5)
    assert isinstance(sampler, FlowEuler)
    plain = denoise(predict, sampler, x, conditions)
    for window in (9, 13):
        assert torch.equal(denoise_in_windows(predict, sampler, x, conditions, window_frames=window, overlap=1), plain)


def test_windows_cover_a_video_and_must_exceed_their_overlap() -> None:
    """Neighbours share the overlap; a window no longer than it would never advance."""
    assert latent_spans(9, 4, 2)[-1] == (6, 3)
    assert [tuple(span) for span in pixel_spans(50, 25)] == [(0, 25), (17, 25), (34, 13)]
    with pytest.raises(ValueError, match="overlap of 8"):
        pixel_spans(50, 8)
    with pytest.raises(ValueError, match="overlap of 4"):
        latent_spans(50, 4, 4)


def test_two_caches_keep_audio_guidance_that_one_loses() -> None:
    """Sharing one residual, a skipped silent pass equals the pass with sound; with one each it does not."""
    dit, conditions, x = make("flash", 2)
    guidance = Guidance(text_scale=6.0, audio_scale=3.0)

    def passes(*caches: TeaCache) -> list[Tensor]:
        outputs: list[Tensor] = []
        handle = dit.register_forward_hook(lambda module, args, out: outputs.append(out))
        denoise(FlashPredict(dit, guidance, 8, *caches), make_sampler("unipc", 8, constructor_shift=1, call_shift=5), x, conditions)
        handle.remove()
        return outputs

    shared = TeaCache(0.1, 5, 8)
    together = passes(shared, shared)
    torch.testing.assert_close(together[4], together[5], atol=1e-5, rtol=0)
    for full, silent in (passes(TeaCache(1e9, 1, 8), TeaCache(1e9, 1, 8))[k : k + 2] for k in range(0, 16, 2)):
        assert (full - silent).abs().max() > 1e-3


def test_phda_and_the_skip_ratio_change_what_they_say() -> None:
    """PhDA moves the result; skipping every guided step is unguided denoising."""
    dit, conditions, x = make("flash", 2)

    def run(ratio: float = 0.0, **guidance: object) -> Tensor:
        own = Guidance(**{"text_scale": 6.0, "audio_scale": 3.0} | guidance)
        sampler = make_sampler("unipc", 8, constructor_shift=1, call_shift=5)
        return denoise(FlashPredict(dit, own, 8, skip_ratio=ratio), sampler, x, conditions)

    assert not torch.equal(run(), run(phda=True))
    assert torch.equal(run(ratio=1.0), run(text_scale=1.0))


def test_a_region_mask_is_told_at_latent_size() -> None:
    """Lip sync: everything known but a region; the first latent frame's channels all say the same."""
    known = torch.ones(1, 1, 5, 32, 32)
    known[:, :, :, 16:, 8:24] = 0
    channels = mask_channels(known, 4, 4)
    assert channels.shape == (1, 4, 2, 4, 4)
    assert torch.equal(channels[0, 0, 0], torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1]]))
    vae = WanVAE(WanVAEConfig(width=2)).eval().requires_grad_(False)
    assert masked_conditioning(vae, torch.rand(1, 3, 5, 32, 32), known).shape == (1, 20, 2, 4, 4)
    assert not masked_conditioning(vae, torch.rand(1, 3, 5, 32, 32), known * 0).any()


def test_audio_of_another_length_is_refused() -> None:
    """Both numbers are in the message; nothing is computed on a guess."""
    dit, conditions, x = make("flash", 3)
    t = torch.tensor([1.0])
    with pytest.raises(ValueError, match="covers 3 latent frames, the video has 2"):
        dit(x[:, :, :2], conditions.y[:, :, :2], t, text=[conditions.prompt], image_BLC=conditions.image, audio=conditions.audio)
    with pytest.raises(ValueError, match="at most 6 tokens, got 7"):
        dit(x, conditions.y, t, text=[torch.zeros(7, 8)], image_BLC=conditions.image, audio=conditions.audio)
    with pytest.raises(ValueError, match="too few"):
        TeaCache(0.1, 5, 4)
