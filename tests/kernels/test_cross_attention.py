"""Cross attention of three branches: Triton against float64, shared keys, the operator, and what is refused."""

from __future__ import annotations

import pytest
import torch

from kernels.cross_attention import _operator, cross_attention

HEADS, HEAD_DIM, FRAMES = 2, 16, 3
DIM = HEADS * HEAD_DIM


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch, interpreted: None) -> None:
    from kernels.cross_attention import triton_impl

    monkeypatch.setattr(triton_impl, "HEAD_DIMS", (HEAD_DIM,))
    monkeypatch.setattr(triton_impl, "PARAMETERS", {f"head {HEAD_DIM}": {"TILE": 16, "KEYS": 16, "AUDIO_KEYS": 16}})


def make(normal, dtype=torch.float32, *, batch=2, frame_tokens=21, text=(1, 19), image=(2, 17), audio=5, weighted=True):
    """Odd numbers of everything; text shared by the batch. As positional arguments of the operation."""
    pairs = [(batch, FRAMES, audio, DIM), (*image, DIM), (*text, DIM)]
    heard, seen, told = (tuple(normal(*shape, dtype=dtype) for _ in range(2)) for shape in pairs)
    weight = normal(batch, FRAMES * frame_tokens, dtype=dtype).sigmoid() if weighted else None
    return normal(batch, FRAMES * frame_tokens, DIM, dtype=dtype), told, seen, heard, weight


def in_float64(q, text, image, audio, weight):
    """Straight from the definition; audio by a mask over the keys of all frames."""

    def attend(k, v, visible=None):
        k, v = (t.repeat_interleave(len(q) // len(t), dim=0).double().unflatten(-1, (HEADS, -1)) for t in (k, v))
        scores = torch.einsum("bqhd,bkhd->bhqk", q.double().unflatten(-1, (HEADS, -1)), k) / HEAD_DIM**0.5
        scores = scores if visible is None else scores.masked_fill(~visible, float("-inf"))
        return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v).flatten(2)

    frames = torch.arange(FRAMES)
    query_frame, key_frame = (frames.repeat_interleave(n) for n in (q.shape[1] // FRAMES, audio[0].shape[2]))
    heard = attend(*(t.flatten(1, 2) for t in audio), query_frame[:, None] == key_frame)
    return attend(*text) + attend(*image) + heard * (1 if weight is None else weight.double()[..., None])


CASES = {
    "odd": {},
    "unweighted": {"weighted": False},
    "whole tiles": {"frame_tokens": 16, "text": (2, 32), "image": (1, 16), "audio": 16},
    "few": {"batch": 1, "frame_tokens": 3, "text": (1, 1), "image": (1, 1), "audio": 1},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("small_tiles", "poisoned")
def test_triton_agrees_with_float64(case, dtype, normal, judge) -> None:
    arguments = make(normal, dtype, **CASES[case])
    judge(cross_attention(*arguments, num_heads=HEADS, implementation="triton"), in_float64(*arguments))


@pytest.mark.usefixtures("small_tiles")
def test_takes_one_layers_keys_of_many_as_they_are(normal, judge) -> None:
    q, text, image, audio, weight = make(normal, text=(2, 19))
    told, seen = (tuple(torch.stack((t * float("nan"), t), dim=1)[:, 1] for t in pair) for pair in (text, image))
    assert not told[0].is_contiguous()
    out = cross_attention(q, told, seen, audio, weight, num_heads=HEADS, implementation="triton")
    judge(out, in_float64(q, text, image, audio, weight))


@pytest.mark.parametrize("case", CASES)
def test_reference_agrees_with_float64(case, normal, judge) -> None:
    arguments = make(normal, **CASES[case])
    judge(cross_attention(*arguments, num_heads=HEADS), in_float64(*arguments))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, about the NaN that the interpreter computes with
@pytest.mark.usefixtures("small_tiles")
def test_sessions_do_not_touch_each_other(normal) -> None:
    """A session whose keys are broken leaves the others' results as they are to the bit, at the edge of its keys too."""
    q, text, image, audio, weight = make(normal, text=(2, 19))
    before = cross_attention(q, text, image, audio, weight, num_heads=HEADS, implementation="triton")
    for tensor in (*text, *image, *audio):
        tensor[1] = float("nan")
    after = cross_attention(q, text, image, audio, weight, num_heads=HEADS, implementation="triton")
    assert torch.equal(before[0], after[0]) and after[1].isnan().all()


@pytest.mark.parametrize("case", CASES)
def test_operator_is_sound(case, normal) -> None:
    q, text, image, audio, weight = make(normal, **CASES[case])
    torch.library.opcheck(_operator, (q, *text, *image, *audio, weight, HEADS))


def test_compiles_as_one_graph(normal) -> None:
    arguments = make(normal)
    compiled = torch.compile(lambda *a: cross_attention(*a, num_heads=HEADS), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*arguments), cross_attention(*arguments, num_heads=HEADS))


def swapped(arguments, index, change):
    """The arguments with the values (or the one tensor) at an index changed."""
    old = arguments[index]
    new = (old[0], change(old[1])) if isinstance(old, tuple) else change(old)
    return (*arguments[:index], new, *arguments[index + 1 :])


@pytest.mark.parametrize(
    ("index", "change", "error", "words"),
    [
        (0, lambda t: t[0], ValueError, r"\[B, N, D\]"),
        (0, lambda t: t[:, :62], ValueError, "a divisor of 62"),
        (1, lambda t: t[:, :3], ValueError, "text values must be"),
        (2, lambda t: t.double(), TypeError, "image must be one of torch.float32"),
        (2, lambda t: t.transpose(1, 2).contiguous().transpose(1, 2), ValueError, "image values must be contiguous but for the first"),
        (3, lambda t: t.to("meta"), ValueError, "one device"),
        (4, lambda t: t[:, :5], ValueError, "audio_weight must be"),
        (4, lambda t: t.double(), TypeError, "audio_weight must be one of"),
    ],
)
@pytest.mark.usefixtures("small_tiles")
def test_refuses(index, change, error, words, normal) -> None:
    with pytest.raises(error, match=words):
        cross_attention(*swapped(make(normal), index, change), num_heads=HEADS, implementation="triton")


@pytest.mark.usefixtures("small_tiles")
def test_refuses_heads_and_types(normal) -> None:
    arguments = make(normal)
    with pytest.raises(ValueError, match="width of a head"):
        cross_attention(*arguments, num_heads=4, implementation="triton")
    with pytest.raises(ValueError, match="3 heads"):
        cross_attention(*arguments, num_heads=3)
    wide = [tuple(t.double() for t in a) if isinstance(a, tuple) else a.double() for a in arguments[:4]]
    with pytest.raises(ValueError, match="float16"):
        cross_attention(*wide, num_heads=HEADS, implementation="triton")
    q, text, image, audio, _ = arguments
    with pytest.raises(ValueError, match="text keys must be"):
        cross_attention(q, (text[0].expand(3, -1, -1), text[1]), image, audio, num_heads=HEADS)
