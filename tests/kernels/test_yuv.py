"""RGB to I420: Triton and the reference against float64, the operator, and what is refused."""

from __future__ import annotations

import pytest
import torch

from kernels.yuv import MATRIX, OFFSET, SWING, _operator, rgb_to_i420


def in_float64(frames):
    """Before rounding, in the order of I420."""
    rgb = frames.double().clamp(-1, 1)
    matrix, swing, offset = (torch.tensor(numbers, dtype=torch.float64) for numbers in (MATRIX, SWING, OFFSET))
    planes = torch.einsum("pc,fchw->fphw", matrix * swing[:, None], rgb) + offset[:, None, None]
    chroma = planes[:, 1:].unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).mean(dim=(3, 5))
    return torch.cat((planes[:, 0].flatten(1), chroma.flatten(1)), dim=1).view(len(frames), -1, frames.shape[3])


def pictures(normal, dtype=torch.float32, size=(22, 38)):
    """Pixels beyond [-1, 1] too."""
    return normal(3, 3, *size, dtype=dtype)


@pytest.mark.parametrize("size", [(22, 38), (2, 2), (64, 34)])
@pytest.mark.parametrize("implementation", ["reference", "triton"])
@pytest.mark.usefixtures("interpreted", "poisoned")
def test_agrees_with_float64(implementation, size, dtype, normal) -> None:
    """Half a step from rounding, and what float32 may add to it where a value lies between two."""
    frames = pictures(normal, dtype, size)
    out = rgb_to_i420(frames, implementation=implementation)
    assert out.dtype == torch.uint8
    assert (out.double() - in_float64(frames)).abs().max() <= 0.5 + 1e-4


@pytest.mark.usefixtures("interpreted")
def test_triton_rounds_half_to_even() -> None:
    import triton
    import triton.language as tl

    from kernels.yuv.triton_impl import _to_byte

    @triton.jit
    def kernel(x_ptr, out_ptr, to_byte: tl.constexpr):
        i = tl.arange(0, 128)
        tl.store(out_ptr + i, to_byte(tl.load(x_ptr + i)))

    halves = torch.arange(128) / 2
    out = torch.empty(128, dtype=torch.uint8)
    kernel[(1,)](halves, out, _to_byte)
    assert torch.equal(out, halves.round().to(torch.uint8))


def test_extremes_keep_to_the_studio_range() -> None:
    white, black = (torch.full((1, 3, 4, 4), level) for level in (7.0, -7.0))
    assert set(rgb_to_i420(white)[:, :4].flatten().tolist()) == {235}
    assert set(rgb_to_i420(black)[:, :4].flatten().tolist()) == {16}
    assert set(rgb_to_i420(white)[:, 4:].flatten().tolist()) == {128}


def test_operator_is_sound(normal) -> None:
    torch.library.opcheck(_operator, (pictures(normal),))


def test_compiles_as_one_graph(normal) -> None:
    frames = pictures(normal)
    assert torch.equal(torch.compile(rgb_to_i420, fullgraph=True, backend="aot_eager")(frames), rgb_to_i420(frames))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda t: t[:, :2], ValueError, r"\[F, 3, H, W\]"),
        (lambda t: t[..., :5], ValueError, "even sizes, got 5x22"),
        (lambda t: t.double(), TypeError, "float16"),
        (lambda t: t.bfloat16(), TypeError, "bfloat16"),
        (lambda t: t.transpose(2, 3), ValueError, "contiguous"),
        (lambda t: t.to("meta"), ValueError, "CPU tensors"),
    ],
)
@pytest.mark.usefixtures("interpreted")
def test_refuses(change, error, words, normal) -> None:
    with pytest.raises(error, match=words):
        rgb_to_i420(change(pictures(normal)), implementation="triton")
