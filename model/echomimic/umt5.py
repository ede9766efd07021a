"""The umT5 text encoder: transformers' module under the published file's names. Imported only when one is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

# Parts of a name: the published file's, then transformers'.
LAYER_NAMES = {
    "attn.q": "0.SelfAttention.q", "attn.k": "0.SelfAttention.k", "attn.v": "0.SelfAttention.v", "attn.o": "0.SelfAttention.o",
    "pos_embedding.embedding": "0.SelfAttention.relative_attention_bias", "norm1": "0.layer_norm",
    "ffn.gate.0": "1.DenseReluDense.wi_0", "ffn.fc1": "1.DenseReluDense.wi_1", "ffn.fc2": "1.DenseReluDense.wo", "norm2": "1.layer_norm",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig:
    vocabulary: int = 256384
    dim: int = 4096
    attention_dim: int = 4096
    ffn_dim: int = 10240
    num_heads: int = 64
    num_layers: int = 24
    num_buckets: int = 32


def make_text_encoder(config: TextConfig) -> nn.Module:
    """The encoder stack, untrained; token ids and mask in, `last_hidden_state` [B, L, D] out."""
    from transformers import UMT5Config, UMT5EncoderModel

    own = UMT5Config(
        vocab_size=config.vocabulary, d_model=config.dim, d_kv=config.attention_dim // config.num_heads, d_ff=config.ffn_dim,
        num_layers=config.num_layers, num_heads=config.num_heads, relative_attention_num_buckets=config.num_buckets,
        relative_attention_max_distance=128, feed_forward_proj="gated-gelu", layer_norm_epsilon=1e-6, dropout_rate=0.0,
    )  # fmt: skip
    return UMT5EncoderModel(own).encoder.eval()


def library_name(name: str) -> str:
    """Where a tensor of the published file goes. Raises KeyError for a name that the file cannot have."""
    outer = {"token_embedding.weight": "embed_tokens.weight", "norm.weight": "final_layer_norm.weight"}
    if name in outer:
        return outer[name]
    kind, layer, part = name.split(".", 2)
    if kind != "blocks":
        raise KeyError(name)
    return f"block.{layer}.layer.{LAYER_NAMES[part.removesuffix('.weight')]}.weight"


def library_names(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {library_name(name): value for name, value in published.items()}


def encode_text(encoder: nn.Module, ids_BL: Tensor, mask_BL: Tensor) -> list[Tensor]:
    """Each text's valid tokens [L, D]; padding is seen by nobody and cut off."""
    out = encoder(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
    return [tokens[: int(mask.sum())] for tokens, mask in zip(out, mask_BL, strict=True)]
