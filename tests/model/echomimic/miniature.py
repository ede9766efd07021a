"""A weights folder as published, all file names and formats real, with random weights and small widths."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from model.echomimic.config import Variant
from model.echomimic.folder import BASE, DIT_FILE, read_widths
from model.echomimic.published import Shapes, clip_shapes, dit_shapes, text_shapes, vae_shapes

CONFIG = {
    "model_type": "i2v", "in_dim": 36, "dim": 48, "ffn_dim": 64, "num_heads": 2, "num_layers": 2, "freq_dim": 16, "text_dim": 24,
    "text_len": 32, "out_dim": 16, "patch_size": [1, 2, 2], "eps": 1e-6,
    "livemimic": {
        "transformer": {"image_dim": 16, "audio_dim": 32, "audio_layers": 2, "audio_hidden": 10, "audio_tokens": 4},
        "vae": {"width": 2},
        "text": {"vocabulary": 40, "dim": 24, "attention_dim": 24, "ffn_dim": 32, "num_heads": 4, "num_layers": 2},
        "clip": {"image_size": 32, "patch": 2, "dim": 16, "num_heads": 2, "num_layers": 3, "layers_used": 2, "out_dim": 8},
    },
}  # fmt: skip
DIT_PLACE = {"preview": "transformer", "flash": "echomimicv3-flash-pro"}
AUDIO_PLACE = {"preview": "wav2vec2-base-960h", "flash": "chinese-wav2vec2-base"}


def write_miniature(folder: Path, variant: Variant, config: dict[str, Any] = CONFIG) -> Path:
    base = folder / BASE
    base.mkdir(parents=True)
    (base / "config.json").write_text(json.dumps(config))
    widths = read_widths(base / "config.json", variant)
    torch.save(random_tensors(vae_shapes(widths.vae)), base / "Wan2.1_VAE.pth")
    torch.save(random_tensors(text_shapes(widths.text), torch.bfloat16), base / "models_t5_umt5-xxl-enc-bf16.pth")
    clip = {name: shape for name, shape in clip_shapes(widths.clip).items() if not name.startswith("textual.")}
    torch.save(random_tensors(clip), base / "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth")
    (folder / DIT_PLACE[variant]).mkdir()
    save_file(random_tensors(dit_shapes(widths.dit), torch.bfloat16), folder / DIT_PLACE[variant] / DIT_FILE)
    _write_wav2vec(folder / AUDIO_PLACE[variant])
    _write_tokenizer(base / "google" / "umt5-xxl")
    return folder


def random_tensors(shapes: Shapes, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Large ones repeat a million numbers: drawing a billion takes minutes."""
    generator = torch.Generator().manual_seed(0)

    def drawn(shape: tuple[int, ...]) -> Tensor:
        size = math.prod(shape)
        block = (torch.randn(min(size, 1 << 20), generator=generator) * 0.1).to(dtype)
        return block.repeat(-(-size // max(1, len(block))))[:size].reshape(shape)

    return {name: drawn(shape) for name, shape in shapes.items()}


def _write_wav2vec(folder: Path) -> None:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    config = Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
    )  # fmt: skip
    Wav2Vec2Model(config).save_pretrained(folder)


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz", " "]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>").save_pretrained(folder)
