"""The attention cases of the kernel benchmark: windows that are alike against every backend of torch, ragged and block-causal batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from kernels.window_attention import Session, reference, window_attention
from tests.benchmarks.kernel_cases import Case, Goal, Scale

BACKENDS = {
    "sdpa cudnn": SDPBackend.CUDNN_ATTENTION,
    "sdpa flash": SDPBackend.FLASH_ATTENTION,
    "sdpa efficient": SDPBackend.EFFICIENT_ATTENTION,
}
RAGGED = {"6/12/18/21": (6, 12, 18, 21), "21/9/1x4": (21, 9, 1, 1, 1, 1), "staggered x8": (3, 6, 9, 12, 15, 18, 21, 21)}
MAX_SAMPLES = 64  # query rows of the first and of the last session that are compared with float64


def window_cases(scale: Scale, whole_grid: bool) -> list[Case]:
    """The shapes of the goals; with `whole_grid` all of queries x window x batch."""
    shapes = [(1, 3, 12), (1, 3, 21), (1, 2, 21), (1, 1, 6), (1, 1, 21), (4, 3, 21), (8, 3, 21)]
    if whole_grid:
        shapes = [(b, q, kv) for b in (1, 2, 4, 8) for q in (1, 2, 3) for kv in (3, 6, 12, 21)]
    if scale.device != "cuda":
        shapes = [(1, 3, 4), (1, 1, 3), (2, 1, 3)]
    cases = [_case(scale, (kv,) * batch, q, f"alike B={batch} q={q}f window={kv}f") for batch, q, kv in shapes]
    cases += [_case(scale, frames, min(3, *frames), f"ragged {name}") for name, frames in RAGGED.items()]
    return cases + [_case(scale, (12,) * batch, 3, f"block-causal B={batch} q=3f window=12f", causal=True) for batch in scale.batches]


def _case(scale: Scale, frames: tuple[int, ...], q_frames: int, name: str, causal: bool = False) -> Case:
    size, capacity = scale.frame_tokens, max(frames)
    q_len, frame_tokens = q_frames * size, size if causal else None
    samples = min(MAX_SAMPLES, size)
    sessions = [Session(q_len, i * capacity * size, capacity * size, 0, n * size) for i, n in enumerate(frames)]

    def inputs() -> tuple[Tensor, ...]:
        return (scale.normal(len(frames) * q_len, scale.dim), *(scale.normal(len(frames) * capacity * size, scale.dim) for _ in range(2)))

    def ours(*tensors: Tensor) -> Tensor:
        options = {"num_heads": scale.heads, "frame_tokens": frame_tokens, "implementation": scale.implementation}
        return window_attention(*tensors, sessions, **options)

    def unsplit(*tensors: Tensor) -> Tensor:
        from kernels.window_attention.triton_impl import launch

        return launch(*tensors, tuple(sessions), scale.heads, frame_tokens, None, None, None, num_workers=1)

    def exact(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Of a session's first rows, which block-causal order lets see all but the last frames."""
        outs = []
        for i in (0, len(frames) - 1):
            s = sessions[i]
            seen = s.kv_len - (s.q_len - size if causal else 0)
            rows = slice(s.ring_row, s.ring_row + seen)
            queries = q[i * q_len : i * q_len + samples].double()
            outs.append(reference(queries, k[rows].double(), v[rows].double(), [len(queries), 0, seen, 0, seen], scale.heads, None))
        return torch.cat(outs)

    alike = len(set(frames)) == 1 and not causal
    candidates: dict[str, Callable[..., Any]] = {"triton": ours, "triton unsplit": unsplit}
    candidates |= dense(scale, len(frames)) if alike else _uneven(scale, sessions, frame_tokens)
    last = (len(frames) - 1) * q_len
    seen_frames = sum(q_frames * n - (q_frames * (q_frames - 1) // 2 if causal else 0) for n in frames)
    return Case(
        name=f"window_attention {name}", inputs=inputs, candidates=candidates, exact=exact, max_error=1e-2,
        goals=_goals(alike, causal, len(frames), q_frames),
        part=lambda out: torch.cat((out[:samples], out[last : last + samples])).double(),
        operations=4.0 * seen_frames * size**2 * scale.dim, no_worse_than="sdpa cudnn" if alike else "loop of sdpa",
    )  # fmt: skip


def _goals(alike: bool, causal: bool, batch: int, q_frames: int) -> tuple[Goal, ...]:
    if not alike:
        against = ("loop", "masked", "varlen", "flex")
        return (Goal("causal", against, 1.0, 1.2),) if causal else (Goal("A6", against, 1.2, 1.5),)
    if batch > 1:
        library = (Goal("A1", ("sdpa cudnn",), 0.8, 1.0), Goal("A2", ("sdpa flash",), 1.25, 1.6))
        return (*library, Goal("A3", ("flex",), 1.05, 1.25))
    if q_frames == 1:
        return (Goal("A5", ("sdpa cudnn",), 1.0, 1.15),)
    return (Goal("A4", ("sdpa cudnn",), 1.0, 1.2), Goal("A7", ("triton unsplit",), 1.2, 1.33))


def _heads(scale: Scale, batch: int, *tensors: Tensor) -> list[Tensor]:
    return [t.view(batch, -1, scale.heads, scale.head_dim).transpose(1, 2) for t in tensors]


def dense(scale: Scale, batch: int) -> dict[str, Callable[..., Any]]:
    """Every way that torch has for one dense batch, as functions of q, k and v rows."""

    def with_backend(backend: SDPBackend) -> Callable[..., Any]:
        def run(*tensors: Tensor) -> Tensor:
            with sdpa_kernel(backend):
                return default(*tensors)

        return run

    def default(*tensors: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(*_heads(scale, batch, *tensors)).transpose(1, 2).reshape(-1, scale.dim)

    return {name: with_backend(backend) for name, backend in BACKENDS.items()} | {"sdpa default": default} | _flex(scale, batch, None)


def _flex(scale: Scale, batch: int, block_mask: Any) -> dict[str, Callable[..., Any]]:
    """FlexAttention as it compiles by default, and for batches with its own search for the fastest configuration."""
    modes = {"flex": None, "flex autotuned": "max-autotune-no-cudagraphs"} if batch > 1 else {"flex": None}

    def with_mode(mode: str | None) -> Callable[..., Any]:
        attention = torch.compile(flex_attention, dynamic=False, mode=mode) if scale.device == "cuda" else flex_attention

        def run(*tensors: Tensor) -> Tensor:
            return attention(*_heads(scale, batch, *tensors), block_mask=block_mask).transpose(1, 2).reshape(-1, scale.dim)

        return run

    return {name: with_mode(mode) for name, mode in modes.items()}


def _uneven(scale: Scale, sessions: list[Session], frame_tokens: int | None) -> dict[str, Callable[..., Any]]:
    """What torch has for rows that see different keys."""
    batch, device, first = len(sessions), scale.device, sessions[0]
    kv_len = torch.tensor([s.kv_len for s in sessions], device=device)
    step = frame_tokens or first.q_len

    def visible(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return k < kv_len[b] - (first.q_len - step - q // step * step)

    index = [torch.arange(n, device=device) for n in (batch, first.q_len, first.capacity)]
    mask = visible(index[0].view(-1, 1, 1, 1), index[0], index[1].view(-1, 1), index[2])
    block_mask = create_block_mask(visible, batch, None, first.q_len, first.capacity, device=device)

    def loop(*tensors: Tensor) -> Tensor:
        return reference(*tensors, [number for s in sessions for number in s], scale.heads, frame_tokens)

    def masked(*tensors: Tensor) -> Tensor:
        out = F.scaled_dot_product_attention(*_heads(scale, batch, *tensors), attn_mask=mask)
        return out.transpose(1, 2).reshape(-1, scale.dim)

    found = {"loop of sdpa": loop, "masked sdpa": masked} | _flex(scale, batch, block_mask)
    return found if frame_tokens else found | {"varlen": _varlen(scale, sessions)}


def _varlen(scale: Scale, sessions: list[Session]) -> Callable[..., Any]:
    lengths = torch.tensor([[s.q_len, s.kv_len] for s in sessions], dtype=torch.int32, device=scale.device)
    cu_q, cu_k = (column.contiguous() for column in F.pad(lengths.cumsum(0, dtype=torch.int32), (0, 0, 1, 0)).unbind(1))
    packed = [row for s in sessions for row in range(s.ring_row, s.ring_row + s.kv_len)]
    rows = torch.tensor(packed, device=scale.device)
    # It gets its keys packed, for free: only the attention itself is timed.
    cache: dict[int, tuple[Tensor, Tensor]] = {}

    def varlen(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        from torch.nn.attention.varlen import varlen_attn

        if k.data_ptr() not in cache:
            cache[k.data_ptr()] = (k[rows], v[rows])
        q, k, v = (t.view(-1, scale.heads, scale.head_dim) for t in (q, *cache[k.data_ptr()]))
        return varlen_attn(q, k, v, cu_q, cu_k, sessions[0].q_len, sessions[0].capacity).flatten(1)

    return varlen
