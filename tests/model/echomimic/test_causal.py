"""The cached causal path of the published transformer against attention over everything at once, with a mask."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.attention import BranchGains
from model.config import WindowConfig
from model.dit import Block, unpatch
from model.echomimic.causal import HEARD_LATENTS, CausalDiT, CausalWindow
from model.echomimic.config import EchoMimicConfig, Variant
from model.echomimic.denoise import Conditions
from model.echomimic.dit import EchoMimicDiT
from model.rope import apply_rope, rope_table

CONTEXT, SIDE, ROWS = 2, 4, 2
TINY = {
    "dim": 48, "ffn_dim": 32, "num_heads": 2, "num_layers": 2, "freq_dim": 16, "text_dim": 8, "text_len": 6, "image_dim": 8,
    "audio_dim": 4, "audio_layers": 2, "audio_hidden": 6, "audio_tokens": 3,
}  # fmt: skip
SIGMA, CONTEXT_SIGMA = 1.0, 0.1


def network(variant: Variant) -> EchoMimicDiT:
    torch.manual_seed(0)
    return EchoMimicDiT(EchoMimicConfig(variant=variant, **TINY)).eval().requires_grad_(False)


def told(variant: Variant) -> tuple[Conditions, Tensor]:
    """Conditions of a session, and latents of its picture standing still."""
    torch.manual_seed(1)
    mask = torch.rand(1, ROWS * ROWS) if variant == "preview" else None
    conditions = Conditions(
        y=torch.randn(1, 20, 4, SIDE, SIDE), prompt=torch.randn(3, 8), negative=torch.randn(2, 8), image=torch.randn(1, 5, 8),
        audio=torch.empty(0), face_mask=mask,
    )  # fmt: skip
    return conditions, torch.randn(1, 16, 1 + CONTEXT, SIDE, SIDE)


def sounds(variant: Variant, count: int) -> list[Tensor]:
    frames = 4 * HEARD_LATENTS - 3
    shape = (1, 2 * (frames + 2), 4) if variant == "preview" else (1, frames, 5, 2, 4)
    return [torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i in range(count)]


def window(dit: EchoMimicDiT, sigmas: tuple[float, ...] = (SIGMA,), guidance: float = 1.0) -> CausalWindow:
    config = WindowConfig(context=CONTEXT, new=1, sigmas=sigmas, context_sigma=CONTEXT_SIGMA, guidance=guidance)
    return CausalWindow(CausalDiT(dit, ROWS * ROWS), config)


def roll(own: CausalWindow, variant: Variant, count: int) -> list[Tensor]:
    state, latents = own.open(*told(variant), 3), []
    for sound in sounds(variant, count):
        (latent,), (state,) = own.advance([state], [sound])
        latents.append(latent[0, :, 0])
    return latents


def attention_over_everything(dit: EchoMimicDiT, variant: Variant, latents: list[Tensor]) -> list[Tensor]:
    """What the network makes of new frames at SIGMA, given the finished ones.

    One sequence holds the anchor, every finished frame, and every new one in its noise. A frame attends from the last place of its
    window; a mask over all frames at all places of a window says which frame stands where.
    """
    count, places = len(latents), CONTEXT + 2
    conditions, known = told(variant)
    anchor, grey = known[0, :, 0], conditions.y[0, 4:, -1]
    noise = [torch.randn(anchor.shape, generator=torch.Generator().manual_seed(3 * 1_000_003 + i)) for i in range(count)]
    x = torch.stack((anchor, *latents, *noise))
    y = torch.stack((anchor, *latents, *[grey] * count))
    mask = torch.cat((torch.ones(1 + count, 4, SIDE, SIDE), torch.zeros(count, 4, SIDE, SIDE)))
    levels = torch.tensor([0.0, *[CONTEXT_SIGMA] * count, *[SIGMA] * count])
    allowed = torch.full((len(x), places, len(x)), float("-inf"))
    for frame in range(len(x)):
        finished, order = (frame, []) if frame <= count else (frame - count - 1, [frame])
        recent = range(CONTEXT - len(order), -1, -1)  # the last finished ones, the anchor where there are none yet
        order = [0, *(max(0, finished - back) for back in recent), *order]
        for place, which in enumerate(order):
            allowed[frame, place, which] = 0.0

    audio = torch.cat([dit.audio_tokens(sound)[:, -1] for sound in sounds(variant, count)])
    audio = torch.cat((torch.zeros_like(audio[:1]), audio, audio))[:, None]
    gains = None
    if conditions.face_mask is not None:
        weight = conditions.face_mask.expand(len(x), -1).clone()
        weight[0] = 0.0
        gains = BranchGains(1.0, 1.0, weight[:, :, None])
    words, image = dit.text_tokens([conditions.prompt]), dit.img_emb(conditions.image)
    z = dit.patch_embedding(torch.cat((x, mask, y), dim=1)[:, :, None]).flatten(2).transpose(1, 2)
    e, e0 = dit._time(levels * 1000, z.dtype)
    table = rope_table(24, places, ROWS, ROWS).unflatten(0, (places, -1))

    def rotated(t: Tensor, place: int) -> Tensor:
        return apply_rope(t.unflatten(-1, (2, -1)), table[place])

    for block in dit.blocks:
        assert isinstance(block, Block)
        m = (e0[:, None] + block.modulation).unbind(2)
        u = F.layer_norm(z, (48,), eps=1e-6) * (1 + m[1]) + m[0]
        own = block.self_attn
        q = rotated(own.norm_q(own.q(u)), places - 1)
        keys = torch.stack([rotated(own.norm_k(own.k(u)), place) for place in range(places)])
        values = own.v(u).unflatten(-1, (2, -1))
        logits = torch.einsum("qnhd,pkmhd->qhnpkm", q, keys) / 24**0.5 + allowed[:, None, None, :, :, None]
        weights = logits.flatten(3).softmax(dim=-1).view_as(logits)
        z = z + own.o(torch.einsum("qhnpkm,kmhd->qnhd", weights, values).flatten(2)) * m[2]
        z = z + block.cross_attn(block.norm3(z), block.cross_attn.static_keys(words, image), audio, gains)
        z = z + block.ffn(F.layer_norm(z, (48,), eps=1e-6) * (1 + m[4]) + m[3]) * m[5]
    flow = unpatch(dit.head(z, e[:, None]), 1, ROWS, ROWS, 2)[:, 0]
    return list((x - levels[:, None, None, None] * flow)[1 + count :])


@pytest.mark.parametrize("variant", ["preview", "flash"])
def test_cached_keys_equal_masked_attention_over_everything(variant: Variant) -> None:
    """Seven frames, more than twice the window, made one by one, are those of one pass over all of them."""
    dit = network(variant)
    latents = roll(window(dit), variant, 7)
    for own, expected in zip(latents, attention_over_everything(dit, variant, latents), strict=True):
        torch.testing.assert_close(own, expected, atol=1e-5, rtol=1e-5)


def test_sessions_in_a_batch_are_the_sessions_alone() -> None:
    """Several steps, guided, with masks of their own."""
    own = window(network("preview"), (1.0, 0.6), guidance=2.0)
    conditions, known = told("preview")
    states = [own.open(conditions, known, 1), own.open(told("flash")[0], -known, 2)]
    heard = sounds("preview", 2)
    together, _ = own.advance(states, heard)
    for state, sound, latent in zip(states, heard, together, strict=True):
        torch.testing.assert_close(own.advance([state], [sound])[0][0], latent, atol=1e-5, rtol=1e-5)


def test_where_nothing_is_heard_the_voice_changes_nothing() -> None:
    """preview's face mask, as a control of each frame, shuts the voice out."""
    own = window(network("preview"))
    conditions, known = told("preview")
    conditions = Conditions(
        y=conditions.y, prompt=conditions.prompt, negative=conditions.negative, image=conditions.image, audio=conditions.audio,
        face_mask=torch.zeros(1, ROWS * ROWS),
    )  # fmt: skip
    state = own.open(conditions, known, 1)
    first, second = (own.advance([state], [sound])[0][0] for sound in sounds("preview", 2))
    assert torch.equal(first, second)
