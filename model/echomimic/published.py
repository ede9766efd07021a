"""Names and shapes of every tensor in the published files, from the modules on the meta device: nothing is allocated."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from model.echomimic.clip import TEXT_LAYERS, TEXT_POSITIONS, TEXT_VOCABULARY, TEXT_WIDTH, ClipBlock, ClipConfig, ClipVision
from model.echomimic.config import EchoMimicConfig, WanVAEConfig
from model.echomimic.dit import EchoMimicDiT
from model.echomimic.umt5 import LAYER_NAMES, TextConfig, library_name, make_text_encoder
from model.echomimic.vae import WanVAE

Shapes = dict[str, tuple[int, ...]]


def module_shapes(build: Callable[[], nn.Module]) -> Shapes:
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in build().state_dict().items()}


def dit_shapes(config: EchoMimicConfig) -> Shapes:
    return module_shapes(lambda: EchoMimicDiT(config))


def vae_shapes(config: WanVAEConfig) -> Shapes:
    return module_shapes(lambda: WanVAE(config))


def text_shapes(config: TextConfig) -> Shapes:
    own = module_shapes(lambda: make_text_encoder(config))
    names = [f"blocks.{layer}.{part}.weight" for layer in range(config.num_layers) for part in LAYER_NAMES]
    shapes = {name: own.pop(library_name(name)) for name in ("token_embedding.weight", "norm.weight", *names)}
    assert not own, f"not in the published file: {sorted(own)}"
    return shapes


def clip_shapes(config: ClipConfig) -> Shapes:
    """The whole file: besides what is used, the last block, norm and head of the image tower, and a text tower."""
    visual = module_shapes(lambda: ClipVision(config))
    for layer in range(config.layers_used, config.num_layers):
        visual |= _prefixed(f"transformer.{layer}.", module_shapes(lambda: ClipBlock(config)))
    visual |= {"post_norm.weight": (config.dim,), "post_norm.bias": (config.dim,), "head": (config.dim, config.out_dim)}
    return {"log_scale": ()} | _prefixed("visual.", visual) | _prefixed("textual.", _text_tower())


def _text_tower() -> Shapes:
    width = TEXT_WIDTH
    block: Shapes = {}
    for part in ("attn.q", "attn.k", "attn.v", "attn.o"):
        block |= {f"{part}.weight": (width, width), f"{part}.bias": (width,)}
    for part in ("norm1", "norm2"):
        block |= {f"{part}.weight": (width,), f"{part}.bias": (width,)}
    block |= {
        "ffn.0.weight": (4 * width, width), "ffn.0.bias": (4 * width,), "ffn.2.weight": (width, 4 * width), "ffn.2.bias": (width,),
    }  # fmt: skip
    tower: Shapes = {
        "token_embedding.weight": (TEXT_VOCABULARY, width), "type_embedding.weight": (1, width),
        "pos_embedding.weight": (TEXT_POSITIONS, width), "norm.weight": (width,), "norm.bias": (width,),
        "head.0.weight": (width, width), "head.2.weight": (width, width),
    }  # fmt: skip
    for layer in range(TEXT_LAYERS):
        tower |= _prefixed(f"blocks.{layer}.", block)
    return tower


def _prefixed(prefix: str, shapes: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}
