"""Golden cases of both transformers and of their audio tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from model import attention
from model.dit import Block
from model.echomimic.audio_tokens import FlashAudio, PreviewAudio, flash_selection, preview_index, preview_ranges, to_frame_rate
from model.echomimic.config import EchoMimicConfig, Variant
from model.echomimic.dit import EchoMimicDiT
from model.golden.case import STATISTICS, Result, compare, exact, loaded, read_json, read_tensors, under

COPIED = ("dim", "ffn_dim", "num_heads", "num_layers", "freq_dim", "text_dim", "text_len", "eps")
REDUCED = {
    "clip_dim": "image_dim", "audio_in": "audio_dim", "a_channels": "audio_dim", "a_blocks": "audio_layers",
    "a_inter": "audio_hidden", "a_tokens": "audio_tokens",
}  # fmt: skip
BRANCHES = ("attn_self", "attn_text", "attn_image", "attn_audio")  # in the order in which a block computes them


def dit_config(variant: Variant, config: dict[str, Any], reduced: dict[str, int]) -> EchoMimicConfig:
    """From the words of the published `config.json` and of the golden files; what they leave out is as published."""
    own: dict[str, Any] = {name: config[name] for name in COPIED if name in config}
    own |= {REDUCED[name]: value for name, value in reduced.items() if name in REDUCED}
    return EchoMimicConfig(variant=variant, **own)


def call(dit: EchoMimicDiT, case: dict[str, Tensor], settings: dict[str, Any]) -> Tensor:
    text = [case[f"text.{i}"] for i in range(len(case["x"]))]
    riflex = settings.get("riflex")
    return dit(
        case["x"], case["y"], case["t"], text=text, image_BLC=case["clip"], audio=case["audio"], face_mask_BN=case.get("ip_mask"),
        audio_scale=settings.get("audio_scale", 1.0), riflex=(riflex["k"], riflex["L_test"]) if riflex else None,
    )  # fmt: skip


@contextmanager
def recorded(dit: EchoMimicDiT) -> Iterator[dict[str, Tensor]]:
    """Outputs of every module by name while the context lasts, and `block0.attn_*`: each attention's output before its projection."""
    seen: dict[str, Tensor] = {}
    attended: list[Tensor] = []

    def keep(name: str) -> Any:
        return lambda module, args, out: seen.update({name: out})

    def attend(q: Tensor, k: Tensor, v: Tensor, num_heads: int) -> Tensor:
        out = original(q, k, v, num_heads)
        if len(attended) < len(BRANCHES):
            seen[f"blocks.0.{BRANCHES[len(attended)]}"] = out.unflatten(-1, (num_heads, -1))
            attended.append(out)
        return out

    original = attention.attend
    handles = [module.register_forward_hook(keep(name)) for name, module in dit.named_modules()]
    try:
        with mock.patch.object(attention, "attend", attend):
            yield seen
    finally:
        for handle in handles:
            handle.remove()


def check_transformer(folder: Path, variant: Variant) -> Iterator[Result]:
    file = f"{variant}_transformer"
    settings, tensors = read_json(folder, file), read_tensors(folder, f"{file}.cases")
    dit = EchoMimicDiT(dit_config(variant, settings["config"], settings["reduced_dims"]))
    loaded(dit, read_tensors(folder, f"{file}.weights"))
    for i, notes in enumerate(settings["cases"]):
        case = under(tensors, f"case{i}.")
        with recorded(dit) as seen:
            out = call(dit, case, notes)
        yield compare(file, f"{i} {notes['note']}", out, case["out"], STATISTICS)
        for name, expected in under(case, "mid.").items():
            yield compare(file, f"{i} mid.{name}", _intermediate(name, seen, case), expected, STATISTICS)
    if variant == "flash":
        yield from _dead_query(dit, under(tensors, "case0."), settings["cases"][0])


def _intermediate(name: str, seen: dict[str, Tensor], case: dict[str, Tensor]) -> Tensor:
    if name in ("audio_first", "audio_latter"):
        return flash_selection(case["audio"])[name == "audio_latter"]
    if name == "patch_embedding":
        return seen[name][-1:]  # the published model embeds sample by sample: what was kept is the last one's
    return seen[name.replace("block", "blocks.", 1) if name.startswith("block") else name]


def _dead_query(dit: EchoMimicDiT, case: dict[str, Tensor], notes: dict[str, Any]) -> Iterator[Result]:
    for block in dit.blocks:
        assert isinstance(block, Block)
        query = block.cross_attn.q_audio
        query.weight.copy_(torch.full_like(query.weight, float("nan")))
    yield compare("flash_transformer", "q_audio has no effect", call(dit, case, notes), case["out"], STATISTICS)


def check_audio_projection(folder: Path) -> Iterator[Result]:
    tensors = read_tensors(folder, "audio_projection")
    preview, flash = under(tensors, "preview."), under(tensors, "flash.")
    x, out = preview.pop("x"), preview.pop("out")
    module: nn.Module = loaded(PreviewAudio(x.shape[-1], out.shape[-1]), preview)
    yield compare("audio_projection", "preview", module(x), out, 1e-5)
    first, latter, out = flash.pop("first"), flash.pop("latter"), flash.pop("out")
    module = loaded(FlashAudio(first.shape[-2], first.shape[-1], len(flash["proj2.bias"]), out.shape[-2], out.shape[-1]), flash)
    yield compare("audio_projection", "flash", module(first, latter), out, 1e-5)


def check_preview_mapping(folder: Path) -> Iterator[Result]:
    for row in read_json(folder, "audio_preview_mapping")["rows"]:
        length, index = row["length"], preview_index(row["length"])
        valid = [sum(i >= 0 for i in window) for window in index]
        own = (len(index), index, [list(ends) for ends in preview_ranges(length)], valid)
        yield exact("audio_preview_mapping", f"length {length}", own, (row["latent_frames"], row["index"], row["ranges"], row["valid"]))


def check_audio_interpolation(folder: Path) -> Iterator[Result]:
    tensors = read_tensors(folder, "audio_interpolation")
    for name in sorted(key.removesuffix(".x") for key in tensors if key.endswith(".x")):
        x, expected = tensors[f"{name}.x"], tensors[f"{name}.out"]
        yield compare("audio_interpolation", name, to_frame_rate(x, expected.shape[1]), expected, 1e-6)
