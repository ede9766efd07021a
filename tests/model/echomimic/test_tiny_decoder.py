"""The tiny decoder against the same layers written out for a whole video, in the published file's layout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.echomimic.tiny_decoder import load_tiny_decoder
from model.echomimic.vae_layers import History
from model.errors import CheckpointError

CPU = torch.device("cpu")
LEVELS = ((3, 256, 1, 128), (9, 128, 2, 64), (15, 64, 2, 64))  # first layer, channels, frames of one, channels after


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Decoder of `taew2_1.pth`, and some of its encoder."""
    shapes: dict[str, tuple[int, ...]] = {
        "decoder.1.weight": (256, 16, 3, 3), "decoder.1.bias": (256,), "decoder.22.weight": (3, 64, 3, 3), "decoder.22.bias": (3,),
        "encoder.0.weight": (64, 3, 3, 3), "encoder.2.conv.weight": (64, 128, 1, 1),
    }  # fmt: skip
    for first, width, growth, following in LEVELS:
        for block in range(first, first + 3):
            for layer, channels in ((0, 2 * width), (2, width), (4, width)):
                shapes[f"decoder.{block}.conv.{layer}.weight"] = (width, channels, 3, 3)
                shapes[f"decoder.{block}.conv.{layer}.bias"] = (width,)
        shapes[f"decoder.{first + 4}.conv.weight"] = (growth * width, width, 1, 1)
        shapes[f"decoder.{first + 5}.weight"] = (following, width, 3, 3)
    return shapes


def random_weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=generator) * (0.8 / max(1, torch.Size(shape[1:]).numel()) ** 0.5)
        for name, shape in published_shapes().items()
    }  # fmt: skip


def whole_video(weights: dict[str, Tensor], z_TChw: Tensor) -> Tensor:
    """All frames at once, layer by layer, [F, 3, H, W] in 0..1."""

    def conv(name: str, x: Tensor) -> Tensor:
        kernel = weights[f"{name}.weight"]
        return F.conv2d(x, kernel, weights.get(f"{name}.bias"), padding=kernel.shape[-1] // 2)

    x = conv("decoder.1", torch.tanh(z_TChw / 3) * 3).relu()
    for first, width, _, _ in LEVELS:
        for block in range(first, first + 3):
            past = torch.cat((torch.zeros_like(x[:1]), x[:-1]))
            y = conv(f"decoder.{block}.conv.0", torch.cat((x, past), dim=1)).relu()
            x = (x + conv(f"decoder.{block}.conv.4", conv(f"decoder.{block}.conv.2", y).relu())).relu()
        x = F.interpolate(x, scale_factor=2)
        x = conv(f"decoder.{first + 4}.conv", x)
        x = x.reshape(-1, width, *x.shape[2:])
        x = conv(f"decoder.{first + 5}", x)
    return conv("decoder.22", x.relu())[3:].clamp(0, 1)


def test_a_stream_equals_the_whole_video(tmp_path: Path) -> None:
    """Latent frame by latent frame, from any place in the stream, gives what all at once give."""
    weights = random_weights()
    torch.save(weights, tmp_path / "taew2_1.pth")
    decoder = load_tiny_decoder(tmp_path / "taew2_1.pth", CPU, torch.float32)
    z = torch.randn(1, 16, 4, 3, 2, generator=torch.Generator().manual_seed(1))
    expected = whole_video(weights, z[0].transpose(0, 1))
    assert ((expected > 0) & (expected < 1)).float().mean() > 0.2 and expected.shape == (13, 3, 24, 16)
    whole = decoder.decode(z)
    torch.testing.assert_close(whole[0].transpose(0, 1) / 2 + 0.5, expected, atol=1e-5, rtol=1e-5)
    history: History = {}
    parts = [decoder.decode(z[:, :, :2], history)]
    kept = dict(history)
    parts += [decoder.decode(z[:, :, i : i + 1], history) for i in (2, 3)]
    assert torch.equal(torch.cat(parts, dim=2), whole)
    assert torch.equal(decoder.decode(z[:, :, 2:], kept), whole[:, :, 5:])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"decoder.22.weight": torch.zeros(12, 64, 3, 3)}, r"decoder\.22\.weight is \(12, 64, 3, 3\), needs \(3, 64, 3, 3\)"),
        ({"decoder.23.bias": torch.zeros(3)}, r"decoder\.23\.bias is not known"),
    ],
)
def test_another_models_file_is_refused(tmp_path: Path, change: dict[str, Tensor], says: str) -> None:
    """The message names the file and the tensor."""
    path = tmp_path / "taew2_2.pth"
    torch.save(random_weights() | change, path)
    with pytest.raises(CheckpointError, match=says) as error:
        load_tiny_decoder(path, CPU, torch.float32)
    assert str(path) in error.value.message
