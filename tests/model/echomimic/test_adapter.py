"""Low-rank adapters: every common way of naming merges alike; what does not fit is named before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from model.echomimic.adapter import Adapter
from model.echomimic.config import EchoMimicConfig
from model.echomimic.published import dit_shapes
from model.errors import CheckpointError

CONFIG = EchoMimicConfig(
    variant="flash", dim=24, ffn_dim=32, num_heads=2, num_layers=1, freq_dim=16, text_dim=8, text_len=6, image_dim=8, audio_dim=4,
    audio_layers=2, audio_hidden=6, audio_tokens=3,
)  # fmt: skip
SHAPES = dit_shapes(CONFIG)
DOWN, UP = torch.randn(2, 24), torch.randn(32, 2)
FFN = "blocks.0.ffn.0.weight"


def adapter(folder: Path, tensors: dict[str, Tensor]) -> Adapter:
    path = folder / "student.safetensors"
    save_file(tensors, path)
    return Adapter(path, SHAPES)


@pytest.mark.parametrize(
    ("place", "down", "up"),
    [
        pytest.param("blocks.0.ffn.0", "lora_A.weight", "lora_B.weight", id="plain"),
        pytest.param("base_model.model.blocks.0.ffn.0", "lora_A.default.weight", "lora_B.default.weight", id="peft"),
        pytest.param("diffusion_model.blocks.0.ffn.0", "lora_down.weight", "lora_up.weight", id="down and up"),
        pytest.param("lora_unet__blocks_0_ffn_0", "lora_down.weight", "lora_up.weight", id="underscores"),
    ],
)
def test_every_common_naming_merges(tmp_path: Path, place: str, down: str, up: str) -> None:
    """W + B A, and alpha / rank times it where alpha is given; other weights stay as they are."""
    weight = torch.randn(32, 24)
    down, up = f"{place}.{down}", f"{place}.{up}"
    torch.testing.assert_close(adapter(tmp_path, {down: DOWN, up: UP}).merged(FFN, weight), weight + UP @ DOWN)
    alpha = {f"{place}.alpha": torch.tensor(1.0)}
    own = adapter(tmp_path, {down: DOWN, up: UP} | alpha)
    torch.testing.assert_close(own.merged(FFN, weight), weight + 0.5 * UP @ DOWN)
    assert own.merged("blocks.0.ffn.2.weight", weight) is weight
    assert own.merged(FFN, weight.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        pytest.param({"blocks.7.ffn.0.lora_A.weight": DOWN}, r"blocks\.7\.ffn\.0\.lora_A\.weight belongs to no linear layer", id="layer"),
        pytest.param({"blocks.0.ffn.0.diff": DOWN}, r"blocks\.0\.ffn\.0\.diff belongs to no linear layer", id="kind"),
        pytest.param({"patch_embedding.lora_A.weight": DOWN}, r"patch_embedding\.lora_A\.weight belongs to no linear", id="convolution"),
        pytest.param({"blocks.0.ffn.0.lora_A.weight": DOWN}, r"blocks\.0\.ffn\.0\.lora_A\.weight has no up side", id="half"),
        pytest.param({"blocks.0.ffn.0.alpha": torch.tensor(1.0)}, r"blocks\.0\.ffn\.0\.alpha stands alone", id="alpha alone"),
        pytest.param(
            {"blocks.0.ffn.0.lora_A.weight": torch.zeros(2, 9), "blocks.0.ffn.0.lora_B.weight": UP},
            r"lora_A\.weight is \(2, 9\), needs \(rank, 24\)", id="width in",
        ),
        pytest.param(
            {"blocks.0.ffn.0.lora_A.weight": DOWN, "blocks.0.ffn.0.lora_B.weight": torch.zeros(32, 3)},
            r"lora_B\.weight is \(32, 3\), needs \(32, 2\)", id="rank",
        ),
        pytest.param(
            {"blocks.0.ffn.0.lora_A.weight": DOWN, "transformer.blocks.0.ffn.0.lora_A.weight": DOWN}, "is there twice", id="twice"
        ),
        pytest.param({}, "holds no tensors", id="empty"),
    ],
)  # fmt: skip
def test_a_key_that_does_not_fit_is_named(tmp_path: Path, tensors: dict[str, Tensor], says: str) -> None:
    with pytest.raises(CheckpointError, match=says) as error:
        adapter(tmp_path, {name: value.clone() for name, value in tensors.items()})
    assert "student.safetensors" in error.value.message
