"""From packed q, k, v to rotated queries and ring rows: Triton against float64, the operator, and what is refused."""

from __future__ import annotations

import pytest
import torch

from kernels.qkv_rope import _operator, qkv_norm_rope_append
from model.dit import RMSNorm
from model.rope import apply_rope, rope_table

CAPACITY = 12
TOKENS = 7


def make(normal, dtype=torch.float32, num_heads=3, head_dim=10):
    """Seven new tokens of two sessions, each with a ring of twelve rows; the first session's tokens wrap around the end of its ring."""
    dim = num_heads * head_dim
    rope = torch.view_as_real(rope_table(head_dim, 3, 2, 2)).contiguous()
    position = torch.tensor([4, 5, 6, 7, 0, 1, 11], dtype=torch.int32)
    slot = torch.tensor([10, 11, 0, 1, 12, 13, 23], dtype=torch.int32)
    caches = [normal(2 * CAPACITY, dim, dtype=dtype) for _ in range(2)]
    return (normal(TOKENS, 3 * dim, dtype=dtype), normal(dim, dtype=dtype), normal(dim, dtype=dtype), rope, position, slot, *caches)


def in_float64(arguments):
    wide = [t.double() if t.is_floating_point() else t.clone() for t in arguments]
    q = qkv_norm_rope_append(*wide, implementation="reference")
    return q, wide[6], wide[7]


@pytest.mark.parametrize(("num_heads", "head_dim"), [(3, 10), (1, 64), (4, 16)])
@pytest.mark.usefixtures("interpreted", "poisoned")
def test_triton_agrees_with_float64(dtype, num_heads, head_dim, normal, judge) -> None:
    arguments = make(normal, dtype, num_heads, head_dim)
    expected = in_float64(arguments)
    actual = (qkv_norm_rope_append(*arguments, implementation="triton"), arguments[6], arguments[7])
    for mine, exact in zip(actual, expected, strict=True):
        judge(mine, exact)


@pytest.mark.parametrize("implementation", ["reference", "triton"])
@pytest.mark.usefixtures("interpreted")
def test_only_the_given_slots_change(implementation, normal) -> None:
    arguments = make(normal)
    before = [cache.clone() for cache in arguments[6:]]
    qkv_norm_rope_append(*arguments, implementation=implementation)
    others = [row for row in range(2 * CAPACITY) if row not in arguments[5].tolist()]
    for cache, old in zip(arguments[6:], before, strict=True):
        assert torch.equal(cache[others], old[others])
    assert torch.equal(arguments[7][arguments[5].long()], arguments[0][:, 60:])


def test_agrees_with_the_model(normal) -> None:
    """The same norm and rotation as the transformer's own layers, whose weights are used as they are."""
    arguments = make(normal)
    norm = RMSNorm(30, 1e-6)
    norm.weight.data.copy_(arguments[1])
    table = rope_table(10, 3, 2, 2)[arguments[4].long()]
    expected = apply_rope(norm(arguments[0][:, :30]).unflatten(-1, (3, 10))[None], table).flatten(2)[0]
    torch.testing.assert_close(qkv_norm_rope_append(*arguments), expected.detach())


def test_operator_is_sound(normal) -> None:
    torch.library.opcheck(_operator, (*make(normal), 1e-6))


def test_compiles_as_one_graph(normal) -> None:
    arguments = make(normal)
    again = tuple(t.clone() for t in arguments)
    compiled = torch.compile(qkv_norm_rope_append, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*arguments), qkv_norm_rope_append(*again))
    torch.testing.assert_close(arguments[6], again[6])


@pytest.mark.parametrize(
    ("index", "change", "error", "words"),
    [
        (0, lambda t: t[:, :-1], ValueError, "3D"),
        (0, lambda t: t.bfloat16(), TypeError, "bfloat16"),
        (0, lambda t: t.t().contiguous().t(), ValueError, "qkv must be contiguous"),
        (1, lambda t: t[:-1], ValueError, "q_weight must be"),
        (3, lambda t: t[:, :4], ValueError, "divisor of D"),
        (3, lambda t: t.half(), TypeError, "rope must be one of torch.float32"),
        (4, lambda t: t.long(), TypeError, "int32"),
        (5, lambda t: t[:3], ValueError, "slot must be"),
        (6, lambda t: t.double(), TypeError, "k_cache"),
        (7, lambda t: t[:5], ValueError, "v_cache must be"),
        (7, lambda t: t.to("meta"), ValueError, "one device"),
    ],
)
def test_refuses(index, change, error, words, normal) -> None:
    arguments = list(make(normal))
    arguments[index] = change(arguments[index])
    with pytest.raises(error, match=words):
        qkv_norm_rope_append(*arguments, implementation="triton")
