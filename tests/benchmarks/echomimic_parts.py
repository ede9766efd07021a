"""The published model's parts with random weights, for the benchmark: at the real widths or small ones.

Precisions: "bf16", linear layers in 8 bits on top of it ("fp8"), and "fp32" in its place on a CPU that only emulates it.

Operations are counted by running the same modules on the meta device under torch's counter, so a floor belongs to what is run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from kernels.fp8_linear import fp8_linear, quantize_rows
from model.devices import working_dtype
from model.echomimic.config import EchoMimicConfig, WanVAEConfig
from model.echomimic.dit import EchoMimicDiT
from model.echomimic.tiny_decoder import TinyDecoder
from model.echomimic.vae import WanVAE

IMAGE_TOKENS = 257
TEXT_TOKENS = 60  # of a prompt; the rest of 512 is padding, which is attended to


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What is measured: (width, height) of the picture, latent frames (context, new) of a window behind its anchor, and so on."""

    name: str
    dit: EchoMimicConfig
    vae: WanVAEConfig
    sizes: tuple[tuple[int, int], ...]
    windows: tuple[tuple[int, int], ...]
    sessions: tuple[int, ...] = (1, 2, 4, 8)
    steps: tuple[int, ...] = (2, 4, 8)


FULL = Profile(
    name="full", dit=EchoMimicConfig(variant="flash"), vae=WanVAEConfig(), sizes=((512, 512), (768, 768)), windows=((2, 3), (2, 1), (17, 3))
)
SMALL = Profile(
    name="small", vae=WanVAEConfig(width=8), sizes=((32, 32), (48, 32)), windows=((2, 1), (1, 2)), sessions=(1, 2), steps=(2,),
    dit=EchoMimicConfig(
        variant="flash", dim=96, ffn_dim=192, num_heads=4, num_layers=2, freq_dim=32, text_dim=32, text_len=64, image_dim=32, audio_dim=16,
        audio_layers=2, audio_hidden=16, audio_tokens=4,
    ),
)  # fmt: skip


class Fp8Linear(nn.Module):
    """A linear layer in 8 bits: its input is quantised row by row on the way in."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight8, self.weight_scale = quantize_rows(linear.weight.data)
        self.bias = linear.bias.data.bfloat16() if linear.bias is not None else None  # the product is bfloat16

    def forward(self, x: Tensor) -> Tensor:
        rows, scale = quantize_rows(x.flatten(0, -2).contiguous())
        return fp8_linear(rows, scale, self.weight8, self.weight_scale, self.bias).unflatten(0, x.shape[:-1]).to(x.dtype)


def full_precision(device: torch.device) -> str:
    return "bf16" if working_dtype(device) == torch.bfloat16 else "fp32"


def make_dit(profile: Profile, device: torch.device, precision: str) -> EchoMimicDiT:
    """Random numbers of the size that weights have; a transformer of zeros would multiply faster."""
    dit = _random(partial(EchoMimicDiT, profile.dit), device)
    for part in (dit.time_embedding, dit.time_projection):
        part.float()
    if precision == "fp8":
        for block in dit.blocks:
            for parent in list(block.modules()):
                for name, child in list(parent.named_children()):
                    if isinstance(child, nn.Linear):
                        setattr(parent, name, Fp8Linear(child))
    return dit


def make_decoder(profile: Profile, device: torch.device, kind: str) -> WanVAE | TinyDecoder:
    return _random(partial(WanVAE, profile.vae) if kind == "full" else TinyDecoder, device)


def _random(build: Callable[[], nn.Module], device: torch.device) -> nn.Module:
    """Every parameter is drawn where it lives: nothing is made on the host first."""
    with torch.device("meta"):
        module = build().to(working_dtype(device))
    module = module.to_empty(device=device).eval().requires_grad_(False)
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        if name.endswith(("gamma", "latent_std")) or (value.dim() == 1 and not name.endswith("bias")):
            value.fill_(1.0)
        else:
            value.normal_(std=(1 / max(1, value[0].numel())) ** 0.5 if value.dim() > 1 else 0.02)
    return module


def dit_inputs(profile: Profile, size: tuple[int, int], frames: int, batch: int, device: torch.device) -> Callable[[EchoMimicDiT], Tensor]:
    """One pass of the transformer over the windows of `batch` sessions, as a function of it."""
    config, (width, height) = profile.dit, (size[0] // 8, size[1] // 8)
    make = partial(torch.randn, device=device, dtype=torch.bfloat16 if device.type == "meta" else working_dtype(device))
    x, y = make(batch, 16, frames, height, width), make(batch, 20, frames, height, width)
    image = make(batch, IMAGE_TOKENS, config.image_dim)
    audio = make(batch, 4 * frames - 3, 5, config.audio_layers, config.audio_dim)
    text = [make(min(TEXT_TOKENS, config.text_len), config.text_dim)] * batch
    t = torch.full((batch,), 500, device=device)
    return lambda dit: dit(x, y, t, text=text, image_BLC=image, audio=audio)


@dataclass(frozen=True, slots=True)
class Work:
    """Operations of one pass: what 8-bit layers take over, and the rest."""

    linear: float
    other: float

    @property
    def total(self) -> float:
        return self.linear + self.other


def dit_work(profile: Profile, size: tuple[int, int], frames: int) -> Work:
    """Of one session's window."""
    meta = torch.device("meta")
    with meta:
        dit = EchoMimicDiT(profile.dit).bfloat16()
        dit.time_embedding.float(), dit.time_projection.float()
    run = dit_inputs(profile, size, frames, 1, meta)
    counts = _count(lambda: run(dit))
    linear = counts.get("aten.mm", 0) + counts.get("aten.addmm", 0)
    return Work(linear, sum(counts.values()) - linear)


def decoder_work(profile: Profile, size: tuple[int, int], kind: str) -> float:
    """Of a latent frame inside a stream, four video frames."""
    meta = torch.device("meta")
    with meta:
        decoder = (WanVAE(profile.vae) if kind == "full" else TinyDecoder()).bfloat16()
        z = torch.empty(1, 16, 1, size[1] // 8, size[0] // 8, dtype=torch.bfloat16)
    history: dict[nn.Module, Tensor] = {}
    decoder.to(meta).decode(z, history)
    return float(sum(_count(lambda: decoder.decode(z, history)).values()))


@torch.inference_mode()
def _count(run: Callable[[], object]) -> dict[str, int]:
    with FlopCounterMode(display=False) as counter:
        run()
    return {str(operation): number for operation, number in counter.get_flop_counts()["Global"].items()}
