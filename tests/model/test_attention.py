"""The transformer as a GPU computes it, through the kernels, equals the transformer as a CPU does: by references and by Triton itself.

No GPU is needed: `fused` is told that there is one, and the kernels run as their references or in Triton's interpreter.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
from pathlib import Path

import pytest
import safetensors.torch
import torch

from model import attention
from model.attention import BranchGains, SelfAttention, own_frames_only
from model.config import PRESENTER_DIT
from model.dit import Block, DiT
from model.rope import rope_table

CONFIG = dataclasses.replace(PRESENTER_DIT, dim=32, ffn_dim=48, num_heads=2, patch=2, grid=8)
HEAD_DIM = TOKENS = 16  # of a frame: 8x8 latent pixels in patches of 2x2
OPERATIONS = ("residual_norm", "qkv_rope", "window_attention", "cross_attention")


@pytest.fixture
def kernels_as(monkeypatch: pytest.MonkeyPatch):
    """kernels_as(route): from then on whatever would go to a GPU goes through the kernels. Returns which of them run."""

    def use(route: str) -> set[str]:
        ran: set[str] = set()
        monkeypatch.setattr(attention, "fused", lambda x: not torch.is_grad_enabled())
        if route == "triton":
            small_tiles(monkeypatch)
        for name in OPERATIONS:
            module = importlib.import_module(f"kernels.{name}")
            monkeypatch.setattr(module, "choose", lambda *_, name=name: ran.add(name) or route)
        return ran

    return use


def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the interpreter can do in seconds."""
    pytest.importorskip("triton")
    from kernels.cross_attention import triton_impl as cross
    from kernels.launch import INTERPRETED
    from kernels.window_attention import triton_impl as window

    if not INTERPRETED:
        pytest.skip("TRITON_INTERPRET=1 must be set before triton is imported")
    for module in (cross, window):
        monkeypatch.setattr(module, "HEAD_DIMS", (HEAD_DIM,))
    monkeypatch.setattr(window, "TILES", (TOKENS,))
    monkeypatch.setattr(window, "PARAMETERS", {f"16 bits, tile {TOKENS}, head {HEAD_DIM}": {}})
    monkeypatch.setattr(cross, "PARAMETERS", {f"head {HEAD_DIM}": {"TILE": 16, "KEYS": 16, "AUDIO_KEYS": 16}})


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5)
    return module


def small_dit(layers: int) -> DiT:
    dit = randomised(DiT(dataclasses.replace(CONFIG, num_layers=layers)))
    assert isinstance(dit, DiT)
    return dit


def inputs(dit: DiT, prompts: int, frames: int):
    """Prompts with their portraits, each of two consecutive rows of the batch."""
    generator, batch = torch.Generator().manual_seed(4), 2 * prompts

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    x, y = (draw(batch, frames, CONFIG.latent_channels, 8, 8) for _ in range(2))
    static = dit.static_keys(draw(prompts, 5, CONFIG.text_dim), draw(prompts, CONFIG.image_tokens, CONFIG.image_dim))
    audio, control = draw(batch, frames, CONFIG.audio_tokens, CONFIG.audio_dim), draw(batch, frames, CONFIG.control_dim)
    arguments = (x, torch.ones(batch, frames, CONFIG.mask_channels, 8, 8), y, torch.rand(batch, frames, generator=generator))
    return arguments, {"static": static, "audio_BTLC": audio, "control_BTC": control}


# Triton's interpreter takes ten milliseconds a token and kernel: the least that has several frames and rows that share keys.
ROUTES = pytest.mark.parametrize(("route", "layers", "prompts"), [("reference", 2, 2), ("triton", 1, 1)], ids=["reference", "triton"])


@ROUTES
@torch.inference_mode()
def test_a_window_computed_whole(route, layers, prompts, kernels_as) -> None:
    dit = small_dit(layers)
    arguments, options = inputs(dit, prompts, frames=2)
    expected = dit(*arguments, **options)
    ran = kernels_as(route)
    torch.testing.assert_close(dit(*arguments, **options), expected, rtol=1e-4, atol=1e-5)
    assert ran == set(OPERATIONS)


@ROUTES
@torch.inference_mode()
def test_a_frame_after_cached_ones(route, layers, prompts, kernels_as) -> None:
    """Cached keys are not rotated yet, so q and k are rotated here; attention itself is the kernels'."""
    dit = small_dit(layers)
    arguments, options = inputs(dit, prompts, frames=1)
    cached = torch.randn(2, 2 * prompts, 2 * TOKENS, CONFIG.dim, generator=torch.Generator().manual_seed(5))

    def context(layer, k, v):
        return torch.cat((cached[0], k), dim=1), torch.cat((cached[1], v), dim=1)

    expected = dit(*arguments, **options, context=context, context_frames=2)
    ran = kernels_as(route)
    out = dit(*arguments, **options, context=context, context_frames=2)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    assert ran == set(OPERATIONS) - {"qkv_rope"}


@pytest.mark.parametrize(
    "gains",
    [
        None,
        BranchGains(1.0, 0.5, 0.7),
        BranchGains(2.0, 1.0, torch.rand(1, 3 * TOKENS, 1)),
        BranchGains(1.0, 1.0, torch.rand(2, 3 * TOKENS, 1)),
    ],
    ids=["none", "numbers", "shared mask", "a mask each"],
)
@torch.inference_mode()
def test_gains_of_branches(gains, kernels_as) -> None:
    block = randomised(Block(CONFIG))
    generator = torch.Generator().manual_seed(6)
    x, e = torch.randn(2, 3 * TOKENS, 32, generator=generator), torch.randn(2, 1, 6, 32, generator=generator)
    assert isinstance(block, Block)
    static = block.cross_attn.static_keys(*(torch.randn(2, n, 32, generator=generator) for n in (5, 7)))
    audio, table = torch.randn(2, 3, 4, 32, generator=generator), rope_table(HEAD_DIM, 3, 4, 4)
    arguments = (x, e, static, audio, gains, 0, own_frames_only, (table, table))
    expected = block(*arguments)
    kernels_as("reference")
    torch.testing.assert_close(block(*arguments), expected, rtol=1e-4, atol=1e-5)


def test_training_does_not_go_through_kernels_without_a_derivative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "fused", lambda x: not torch.is_grad_enabled())
    dit = small_dit(1)
    arguments, options = inputs(dit, 1, frames=2)
    dit(*arguments, **options).sum().backward()
    assert all(p.grad is not None for name, p in dit.named_parameters() if "self_attn" in name)


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> SelfAttention:
    """A layer that was used, so that its weights are packed."""
    monkeypatch.setattr(attention, "fused", lambda x: True)
    layer = randomised(SelfAttention(32, 2, 1e-6))
    assert isinstance(layer, SelfAttention)
    through(layer)
    return layer


@torch.inference_mode()
def through(layer: SelfAttention) -> torch.Tensor:
    table = rope_table(HEAD_DIM, 1, 4, 4)
    return layer(torch.ones(1, TOKENS, 32).cumsum(1), 0, own_frames_only, (table, table))


def test_packed_weights_are_kept_once_and_save_as_before(packed: SelfAttention, tmp_path: Path) -> None:
    storages = {part.weight.untyped_storage().data_ptr() for part in (packed.q, packed.k, packed.v)}
    assert len(storages) == 1 and list(packed.state_dict()) == list(SelfAttention(32, 2, 1e-6).state_dict())
    safetensors.torch.save_file(packed.state_dict(), tmp_path / "layer.safetensors")
    loaded = safetensors.torch.load_file(tmp_path / "layer.safetensors")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in packed.state_dict().items())


@pytest.mark.parametrize("change", ["loaded", "replaced", "copied", "converted"])
def test_new_weights_are_seen(change, packed: SelfAttention, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, doubled = packed, {name: 2 * tensor for name, tensor in packed.state_dict().items()}
    if change == "loaded":
        layer.load_state_dict(doubled)
    elif change == "replaced":
        layer.load_state_dict(doubled, assign=True)
    elif change == "copied":
        layer = copy.deepcopy(packed)
        layer.k.weight.data.mul_(2)
    else:
        layer.double().float()
    out = through(layer)
    monkeypatch.setattr(attention, "fused", lambda x: False)
    torch.testing.assert_close(out, through(layer), rtol=1e-4, atol=1e-5)
