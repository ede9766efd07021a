"""The attention cases of the kernel benchmark: windows that are alike against every backend of torch, and ragged batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import flex_attention

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
    alike = [_case(scale, (kv,) * batch, q, f"alike B={batch} q={q}f window={kv}f") for batch, q, kv in shapes]
    return alike + [_case(scale, frames, min(3, *frames), f"ragged {name}") for name, frames in RAGGED.items()]


def _case(scale: Scale, frames: tuple[int, ...], q_frames: int, name: str) -> Case:
    size, capacity = scale.frame_tokens, max(frames)
    q_len = q_frames * size
    samples = min(MAX_SAMPLES, q_len)
    sessions = [Session(q_len, i * capacity * size, capacity * size, 0, n * size) for i, n in enumerate(frames)]
    flat = [number for session in sessions for number in session]

    def inputs() -> tuple[Tensor, ...]:
        return (scale.normal(len(frames) * q_len, scale.dim), *(scale.normal(len(frames) * capacity * size, scale.dim) for _ in range(2)))

    def ours(*tensors: Tensor) -> Tensor:
        return window_attention(*tensors, sessions, num_heads=scale.heads, implementation=scale.implementation)

    def unsplit(*tensors: Tensor) -> Tensor:
        from kernels.window_attention.triton_impl import launch

        return launch(*tensors, tuple(sessions), scale.heads, None, None, None, None, num_workers=1)

    def exact(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        outs = []
        for i in (0, len(frames) - 1):
            s = sessions[i]
            rows = slice(s.ring_row, s.ring_row + s.kv_len)
            queries = q[i * q_len : i * q_len + samples].double()
            outs.append(reference(queries, k[rows].double(), v[rows].double(), [len(queries), 0, s.kv_len, 0, s.kv_len], scale.heads, None))
        return torch.cat(outs)

    alike = len(set(frames)) == 1
    candidates: dict[str, Callable[..., Any]] = {"triton": ours, "triton unsplit": unsplit}
    candidates |= _dense(scale, len(frames)) if alike else _ragged(scale, sessions, flat)
    last = (len(frames) - 1) * q_len
    return Case(
        name=f"window_attention {name}", inputs=inputs, candidates=candidates, exact=exact, max_error=1e-2,
        part=lambda out: torch.cat((out[:samples], out[last : last + samples])).double(), goals=_goals(alike, len(frames), q_frames),
        operations=4.0 * q_len * sum(frames) * size * scale.dim,
    )  # fmt: skip


def _goals(alike: bool, batch: int, q_frames: int) -> tuple[Goal, ...]:
    if not alike:
        return (Goal("A6", ("loop", "padded", "varlen"), 1.2, 1.5),)
    if batch > 1:
        library = (Goal("A1", ("sdpa cudnn",), 0.8, 1.0), Goal("A2", ("sdpa flash",), 1.25, 1.6))
        return (*library, Goal("A3", ("flex",), 1.05, 1.25))
    if q_frames == 1:
        return (Goal("A5", ("sdpa cudnn",), 1.0, 1.15),)
    return (Goal("A4", ("sdpa cudnn",), 1.0, 1.2), Goal("A7", ("triton unsplit",), 1.2, 1.33))


def _heads(scale: Scale, batch: int, *tensors: Tensor) -> list[Tensor]:
    return [t.view(batch, -1, scale.heads, scale.head_dim).transpose(1, 2) for t in tensors]


def _dense(scale: Scale, batch: int) -> dict[str, Callable[..., Any]]:
    def with_backend(backend: SDPBackend) -> Callable[..., Any]:
        def run(*tensors: Tensor) -> Tensor:
            with sdpa_kernel(backend):
                return default(*tensors)

        return run

    def default(*tensors: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(*_heads(scale, batch, *tensors)).transpose(1, 2).reshape(-1, scale.dim)

    def flex(*tensors: Tensor) -> Tensor:
        return compiled_flex(*_heads(scale, batch, *tensors)).transpose(1, 2).reshape(-1, scale.dim)

    compiled_flex = torch.compile(flex_attention, dynamic=False) if scale.device == "cuda" else flex_attention
    return {name: with_backend(backend) for name, backend in BACKENDS.items()} | {"sdpa default": default, "flex": flex}


def _ragged(scale: Scale, sessions: list[Session], flat: list[int]) -> dict[str, Callable[..., Any]]:
    batch, device = len(sessions), scale.device
    mask = torch.zeros(batch, 1, 1, sessions[0].capacity, dtype=torch.bool, device=device)
    for i, session in enumerate(sessions):
        mask[i, ..., : session.kv_len] = True

    def loop(*tensors: Tensor) -> Tensor:
        return reference(*tensors, flat, scale.heads, None)

    def padded(*tensors: Tensor) -> Tensor:
        out = F.scaled_dot_product_attention(*_heads(scale, batch, *tensors), attn_mask=mask)
        return out.transpose(1, 2).reshape(-1, scale.dim)

    lengths = torch.tensor([[s.q_len, s.kv_len] for s in sessions], dtype=torch.int32, device=device)
    cu_q, cu_k = (column.contiguous() for column in F.pad(lengths.cumsum(0, dtype=torch.int32), (0, 0, 1, 0)).unbind(1))
    packed = [row for s in sessions for row in range(s.ring_row, s.ring_row + s.kv_len)]
    rows = torch.tensor(packed, device=device)
    # It gets its keys packed, for free: only the attention itself is timed.
    cache: dict[int, tuple[Tensor, Tensor]] = {}

    def varlen(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        from torch.nn.attention.varlen import varlen_attn

        if k.data_ptr() not in cache:
            cache[k.data_ptr()] = (k[rows], v[rows])
        q, k, v = (t.view(-1, scale.heads, scale.head_dim) for t in (q, *cache[k.data_ptr()]))
        return varlen_attn(q, k, v, cu_q, cu_k, sessions[0].q_len, sessions[0].capacity).flatten(1)

    return {"loop of sdpa": loop, "padded sdpa": padded, "varlen": varlen}
