"""From packed q, k, v to rotated queries and ring rows: Triton against float64, the operator, and what is refused."""

from __future__ import annotations

import pytest
import torch

from kernels.fp8 import FP8
from kernels.qkv_rope import _operator, qkv_norm_rope_append
from model.attention import RMSNorm
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
    return qkv_norm_rope_append(*wide, implementation="reference").q, wide[6], wide[7]


def make_fp8(normal, num_heads=3, head_dim=16):
    """The same with rings in 8 bits, whose rows and factors hold NaN until they are written."""
    arguments = make(normal, num_heads=num_heads, head_dim=head_dim)
    rings = [torch.full(cache.shape, float("nan")).to(FP8) for cache in arguments[6:]]
    return (*arguments[:6], *rings, *(torch.full((num_heads, 2 * CAPACITY), float("nan")) for _ in range(2)))


@pytest.mark.parametrize(("num_heads", "head_dim"), [(3, 10), (1, 64), (4, 16)])
@pytest.mark.usefixtures("interpreted", "poisoned")
def test_triton_agrees_with_float64(dtype, num_heads, head_dim, normal, judge) -> None:
    arguments = make(normal, dtype, num_heads, head_dim)
    expected = in_float64(arguments)
    actual = (qkv_norm_rope_append(*arguments, implementation="triton").q, arguments[6], arguments[7])
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
    torch.testing.assert_close(qkv_norm_rope_append(*arguments).q, expected.detach())


def test_fp8_reference_is_within_fp8_precision(normal) -> None:
    """Every head of q, k and v times its factor, against float64; its largest value is the largest 8-bit number."""
    arguments, plain = make_fp8(normal), make(normal, head_dim=16)
    plain = (*arguments[:6], *plain[6:])
    expected, slot = in_float64(plain), arguments[5].long()
    out = qkv_norm_rope_append(*arguments)
    assert out.scale is not None and out.q.dtype == FP8
    results = ((out.q, out.scale), (arguments[6], arguments[8]), (arguments[7], arguments[9]))
    for (x8, scale), exact in zip(results, expected, strict=True):
        rows = slice(None) if len(x8) == TOKENS else slot
        heads = x8.float()[rows].unflatten(-1, (3, -1))
        wide = (heads * scale[:, rows].t()[..., None]).flatten(1).double()
        assert (wide - exact[rows]).norm() / exact[rows].norm() < 0.04
        assert heads.abs().amax(-1).eq(448).all()


@pytest.mark.usefixtures("interpreted", "poisoned")
def test_triton_writes_fp8_with_factors(normal) -> None:
    """Factors to float32's precision; values coarsely, as the interpreter's own cast to fp8 is off near powers of two."""
    mine = make_fp8(normal)
    theirs = tuple(t.clone() for t in mine)
    actual = qkv_norm_rope_append(*mine, implementation="triton")
    expected = qkv_norm_rope_append(*theirs, implementation="reference")
    for a, e in ((actual.scale, expected.scale), (mine[8], theirs[8]), (mine[9], theirs[9])):
        torch.testing.assert_close(a, e, rtol=1e-5, atol=0, equal_nan=True)
    for a, e in ((actual.q, expected.q), (mine[6], theirs[6]), (mine[7], theirs[7])):
        assert a.dtype == FP8 and torch.equal(a.float().isnan(), e.float().isnan())
        assert torch.isclose(a.float(), e.float(), rtol=0, atol=0, equal_nan=True).float().mean() > 0.9


def test_operator_is_sound(normal) -> None:
    torch.library.opcheck(_operator, (*make(normal), None, None, 1e-6))


def test_operator_is_sound_in_8_bits(normal) -> None:
    # Not comparing tensors before and after, for which torch lacks 8-bit arithmetic on a CPU.
    torch.library.opcheck(_operator, (*make_fp8(normal), 1e-6), test_utils=("test_autograd_registration", "test_faketensor"))


def test_compiles_as_one_graph(normal) -> None:
    arguments = make(normal)
    again = tuple(t.clone() for t in arguments)
    compiled = torch.compile(qkv_norm_rope_append, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*arguments).q, qkv_norm_rope_append(*again).q)
    torch.testing.assert_close(arguments[6], again[6])


def test_compiles_as_one_graph_in_8_bits(normal) -> None:
    arguments = make_fp8(normal)
    again = tuple(t.clone() for t in arguments)
    compiled = torch.compile(qkv_norm_rope_append, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*arguments).q.float(), qkv_norm_rope_append(*again).q.float())
    torch.testing.assert_close(arguments[6].float(), again[6].float(), equal_nan=True)
    torch.testing.assert_close(arguments[8], again[8], equal_nan=True)


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


@pytest.mark.parametrize(
    ("index", "change", "error", "words"),
    [
        (6, lambda t: t.float(), TypeError, "k_cache must be one of torch.float8_e4m3fn"),
        (8, lambda t: None, ValueError, "k_scale and v_scale together"),
        (8, lambda t: t.t(), ValueError, "k_scale must be"),
        (9, lambda t: t.double(), TypeError, "v_scale must be one of torch.float32"),
        (9, lambda t: t.t().contiguous().t(), ValueError, "v_scale must be contiguous"),
    ],
)
def test_refuses_in_8_bits(index, change, error, words, normal) -> None:
    arguments = list(make_fp8(normal))
    arguments[index] = change(arguments[index])
    with pytest.raises(error, match=words):
        qkv_norm_rope_append(*arguments, implementation="triton")


@pytest.mark.usefixtures("interpreted")
def test_refuses_odd_heads_in_8_bits(normal) -> None:
    with pytest.raises(ValueError, match="power of two, got 10"):
        qkv_norm_rope_append(*make_fp8(normal, head_dim=10), implementation="triton")
