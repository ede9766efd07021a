"""Attention over ring caches: Triton against float64, ragged, wrapped, split and block-causal; the operator; what is refused."""

from __future__ import annotations

import pytest
import torch

from kernels.fp8 import quantize
from kernels.window_attention import Scales, Session, _operator, window_attention

HEADS, HEAD_DIM, TILE = 3, 16, 16
CASES = {
    "one session, split": ([Session(32, 0, 112, 0, 96)], None),
    "alike": ([Session(16, 0, 48, 0, 48), Session(16, 48, 48, 0, 48)], None),
    "ragged": ([Session(32, 0, 64, 0, 16), Session(16, 64, 80, 0, 64), Session(16, 144, 16, 0, 16)], None),
    "wraps around": ([Session(32, 16, 64, 48, 48), Session(16, 80, 96, 32, 96)], None),
    "block-causal": ([Session(64, 0, 96, 64, 96), Session(32, 96, 64, 0, 32)], 32),
}


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch, interpreted: None) -> None:
    """The interpreter takes milliseconds for a tile of any size: few and small ones."""
    from kernels.window_attention import triton_impl

    monkeypatch.setattr(triton_impl, "TILES", (TILE,))
    monkeypatch.setattr(triton_impl, "HEAD_DIMS", (HEAD_DIM,))
    monkeypatch.setattr(triton_impl, "PARAMETERS", {f"{bits} bits, tile {TILE}, head {HEAD_DIM}": {} for bits in (16, 8)})


def make(normal, case: str, dtype=torch.float32):
    """Rows of the caches that belong to no window hold NaN: one that is read shows."""
    sessions, frame_tokens = CASES[case]
    q = normal(sum(s.q_len for s in sessions), HEADS * HEAD_DIM, dtype=dtype)
    rows = max(s.ring_row + s.capacity for s in sessions) + 16
    caches = [normal(rows, HEADS * HEAD_DIM, dtype=dtype) for _ in range(2)]
    used = {row for s in sessions for row in window_rows(s)}
    for cache in caches:
        cache[[row for row in range(rows) if row not in used]] = float("nan")
    return (q, *caches, sessions), {"num_heads": HEADS, "frame_tokens": frame_tokens}


def make_fp8(normal, case: str):
    """The case in 8 bits, and its exact values; sessions and heads of different sizes, so that a wrong factor shows."""
    (q, k, v, sessions), options = make(normal, case)
    narrow, factors, wide = [], [], []
    for tensor in (q, k, v):
        sizes = (1 + torch.arange(len(tensor))[:, None] % 7) * (1 + torch.arange(HEADS))
        x8, scale = quantize(tensor.unflatten(1, (HEADS, -1)) * sizes[..., None])
        narrow.append(x8.flatten(1))
        factors.append(scale.t().contiguous())
        wide.append((x8.double() * scale[..., None]).flatten(1))
    return (*narrow, sessions), options | {"scales": Scales(*factors)}, in_float64(*wide, sessions, **options)


def window_rows(s: Session) -> list[int]:
    return [s.ring_row + (s.first + j) % s.capacity for j in range(s.kv_len)]


def in_float64(q, k_cache, v_cache, sessions, *, num_heads, frame_tokens):
    """Row by row, straight from the definition."""
    out, q_row = [], 0
    for session in sessions:
        rows = torch.tensor(window_rows(session))
        k, v = (cache[rows].double().unflatten(-1, (num_heads, -1)) for cache in (k_cache, v_cache))
        queries = q[q_row : q_row + session.q_len].double().unflatten(-1, (num_heads, -1))
        scores = torch.einsum("qhd,khd->hqk", queries, k) / queries.shape[-1] ** 0.5
        if frame_tokens:
            query_frame = torch.arange(session.q_len) // frame_tokens
            newest_first = (session.kv_len - 1 - torch.arange(session.kv_len)) // frame_tokens
            hidden = newest_first[None] < session.q_len // frame_tokens - 1 - query_frame[:, None]
            scores = scores.masked_fill(hidden, float("-inf"))
        out.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).flatten(1))
        q_row += session.q_len
    return torch.cat(out)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("small_tiles", "poisoned")
def test_triton_agrees_with_float64(case, dtype, normal, judge) -> None:
    arguments, options = make(normal, case, dtype)
    judge(window_attention(*arguments, **options, implementation="triton"), in_float64(*arguments, **options))


@pytest.mark.usefixtures("small_tiles")
def test_cases_split_and_do_not(normal) -> None:
    """Both ways of writing the output are covered above, and a run repeats to the bit."""
    from kernels.window_attention.plan import make_plan
    from kernels.window_attention.triton_impl import INTERPRETED_WORKERS

    plans = [make_plan(tuple(s), HEADS, TILE, frame, INTERPRETED_WORKERS) for s, frame in CASES.values()]
    assert any(p.merges for p in plans) and any(item.slot < 0 for p in plans for item in p.items)
    arguments, options = make(normal, "one session, split")
    twice = [window_attention(*arguments, **options, implementation="triton") for _ in range(2)]
    assert torch.equal(*twice)


@pytest.mark.usefixtures("small_tiles", "poisoned")
def test_planned_for_one_processor_nothing_is_split(normal, judge) -> None:
    from kernels.window_attention.triton_impl import launch

    (q, k, v, sessions), options = make(normal, "one session, split")
    judge(launch(q, k, v, tuple(sessions), HEADS, None, None, None, None, num_workers=1), in_float64(q, k, v, sessions, **options))


@pytest.mark.usefixtures("small_tiles")
def test_large_scores_do_not_overflow(normal, judge) -> None:
    arguments, options = make(normal, "ragged", torch.float16)
    arguments[0].mul_(30)
    judge(window_attention(*arguments, **options, implementation="triton"), in_float64(*arguments, **options))


@pytest.mark.parametrize("case", CASES)
def test_reference_agrees_with_float64(case, normal, judge) -> None:
    arguments, options = make(normal, case)
    judge(window_attention(*arguments, **options), in_float64(*arguments, **options))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("small_tiles", "poisoned")
def test_triton_in_8_bits_agrees_with_float64(case, normal, judge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every factor in its place: all but the rounding of softmax weights to 8 bits, which the interpreter does wrongly."""
    import triton.language as tl

    from kernels.window_attention import triton_impl

    monkeypatch.setattr(triton_impl, "WEIGHTS8", tl.float32)
    monkeypatch.setattr(triton_impl, "OUT8", torch.float32)
    arguments, options, exact = make_fp8(normal, case)
    judge(window_attention(*arguments, **options, implementation="triton"), exact)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("small_tiles")
def test_triton_rounds_softmax_weights_to_8_bits(case, normal) -> None:
    """With the interpreter's cast, which errs by up to a factor of two in a few values: the gate of 0.04 is for a GPU."""
    arguments, options, exact = make_fp8(normal, case)
    out = window_attention(*arguments, **options, implementation="triton")
    assert out.dtype == torch.bfloat16
    assert 1e-3 < (out.double() - exact).norm() / exact.norm() < 0.15


@pytest.mark.parametrize("case", CASES)
def test_reference_in_8_bits_agrees_with_float64(case, normal) -> None:
    """To the precision of its bfloat16 output."""
    arguments, options, exact = make_fp8(normal, case)
    out = window_attention(*arguments, **options)
    assert out.dtype == torch.bfloat16 and (out.double() - exact).norm() / exact.norm() < 4e-3


@pytest.mark.usefixtures("small_tiles")
def test_a_session_alone_differs_by_rounding_only(normal, judge) -> None:
    """How keys are split depends on the batch, and with it the order of sums, nothing else."""
    (q, k, v, sessions), options = make(normal, "ragged")
    together = window_attention(q, k, v, sessions, **options, implementation="triton")
    alone = window_attention(q[:32], k, v, sessions[:1], **options, implementation="triton")
    judge(alone, together[:32].double())


@pytest.mark.parametrize("case", CASES)
def test_operator_is_sound_in_8_bits(case, normal) -> None:
    (q, k, v, sessions), options, _ = make_fp8(normal, case)
    flat = [n for s in sessions for n in s]
    arguments = (q, k, v, flat, HEADS, options["frame_tokens"], *options["scales"])
    # Not comparing tensors before and after, for which torch lacks 8-bit arithmetic on a CPU.
    torch.library.opcheck(_operator, arguments, test_utils=("test_autograd_registration", "test_faketensor"))


@pytest.mark.parametrize("case", CASES)
def test_operator_is_sound(case, normal) -> None:
    (q, k, v, sessions), options = make(normal, case)
    torch.library.opcheck(_operator, (q, k, v, [n for s in sessions for n in s], HEADS, options["frame_tokens"], None, None, None))


def test_compiles_as_one_graph(normal) -> None:
    arguments, options = make(normal, "ragged")
    compiled = torch.compile(lambda *a: window_attention(*a, **options), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*arguments), window_attention(*arguments, **options))


def test_compiles_as_one_graph_in_8_bits(normal) -> None:
    arguments, options, _ = make_fp8(normal, "ragged")
    compiled = torch.compile(lambda *a: window_attention(*a, **options), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*arguments), window_attention(*arguments, **options))


@pytest.mark.parametrize(
    ("sessions", "options", "words"),
    [
        ([Session(24, 0, 64, 0, 64)], {}, "multiples of one of"),
        ([Session(32, 0, 64, 8, 16)], {}, "multiples of one of"),
        ([Session(16, 0, 64, 0, 64)], {}, "32 queries together"),
        ([Session(32, 0, 64, 0, 80)], {}, "inside its ring"),
        ([Session(32, 80, 64, 0, 64)], {}, "inside the 128 cache rows"),
        ([Session(32, 0, 64, 0, 16)], {"frame_tokens": 16}, "own keys included"),
        ([Session(32, 0, 64, 0, 64)], {"frame_tokens": 24}, "whole frames of 24"),
        ([Session(32, 0, 64, 0, 64)], {"num_heads": 5}, "5 heads"),
        ([Session(32, 0, 64, 0, 64)], {"num_heads": 6}, "width of a head"),
    ],
)
@pytest.mark.usefixtures("small_tiles")
def test_refuses_windows(sessions, options, words, normal) -> None:
    q_len = 24 if sessions[0].q_len == 24 else 32
    q, k, v = normal(q_len, 48), normal(128, 48), normal(128, 48)
    with pytest.raises(ValueError, match=words):
        window_attention(q, k, v, sessions, **({"num_heads": HEADS, "implementation": "triton"} | options))


@pytest.mark.usefixtures("small_tiles")
def test_refuses_types_layouts_and_devices(normal) -> None:
    session, q, k, v = [Session(32, 0, 64, 0, 64)], normal(32, 48), normal(64, 48), normal(64, 48)
    options = {"num_heads": HEADS, "implementation": "triton"}
    with pytest.raises(TypeError, match="v_cache must be one of torch.float32"):
        window_attention(q, k, v.half(), session, **options)
    with pytest.raises(ValueError, match="float16"):
        window_attention(q.double(), k.double(), v.double(), session, **options)
    with pytest.raises(ValueError, match="k_cache must be contiguous"):
        window_attention(q, k.t().contiguous().t(), v, session, **options)
    with pytest.raises(ValueError, match="CPU tensors"):
        window_attention(*(t.to("meta") for t in (q, k, v)), session, **options)
    with pytest.raises(ValueError, match="one device"):
        window_attention(q, k, v.to("meta"), session, **options)
    with pytest.raises(ValueError, match=r"v_cache must be \[64, 48\]"):
        window_attention(q, k, v[:16], session, **options)


@pytest.mark.usefixtures("small_tiles")
def test_refuses_in_8_bits(normal) -> None:
    (q, k, v, sessions), options, _ = make_fp8(normal, "alike")
    options |= {"implementation": "triton"}
    scales = options["scales"]
    with pytest.raises(ValueError, match="scales go with q in torch.float8_e4m3fn"):
        window_attention(q, k, v, sessions, **options | {"scales": None})
    with pytest.raises(ValueError, match="scales go with q in torch.float8_e4m3fn"):
        window_attention(q.float(), k.float(), v.float(), sessions, **options)
    with pytest.raises(TypeError, match="k_cache must be one of torch.float8_e4m3fn"):
        window_attention(q, k.float(), v, sessions, **options)
    with pytest.raises(ValueError, match="scales of k must be"):
        window_attention(q, k, v, sessions, **options | {"scales": scales._replace(k=scales.q)})
    with pytest.raises(TypeError, match="scales of v must be one of torch.float32"):
        window_attention(q, k, v, sessions, **options | {"scales": scales._replace(v=scales.v.half())})
    with pytest.raises(ValueError, match="scales.v must be contiguous"):
        window_attention(q, k, v, sessions, **options | {"scales": scales._replace(v=scales.v.t().contiguous().t())})
