"""One program a work item of the plan: a tile of queries by one head over a run of key blocks; then the merge of split tiles.

Windows and frames are whole tiles, so there is no tail and no mask in the loop. Loads go through host-made TMA descriptors; at tiles
of 128 with 8 warps each of the two consumer groups owns 64 query rows.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from kernels.launch import INTERPRETED, TYPE_NAMES, Variant, check_launch
from kernels.window_attention.plan import Plan, Session, make_plan

# Rows of a tile of queries and of a block of keys: warps and pipeline stages.
TILES: dict[int, tuple[int, int]] = {128: (8, 2), 64: (4, 3)}
HEAD_DIMS = (64, 128)
DTYPES = (torch.bfloat16, torch.float16)
MERGE_ROWS = 16
INTERPRETED_WORKERS = 5
LOG2_E = math.log2(math.e)


@triton.jit
def attention_kernel(
    q_desc, k_desc, v_desc, out_ptr, partial_ptr, stats_ptr, items_ptr, scale,
    DIM: tl.constexpr, HEAD_DIM: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """scale includes log2(e), so that exponentials are powers of two."""
    item_ptr = items_ptr + tl.program_id(0) * 8
    q_row, head, ring_row = tl.load(item_ptr), tl.load(item_ptr + 1), tl.load(item_ptr + 2)
    capacity, first, num_blocks, slot = tl.load(item_ptr + 3), tl.load(item_ptr + 4), tl.load(item_ptr + 5), tl.load(item_ptr + 6)
    q = q_desc.load([q_row, head * HEAD_DIM])
    peak = tl.full((TILE,), float("-inf"), tl.float32)
    total = tl.zeros((TILE,), tl.float32)
    acc = tl.zeros((TILE, HEAD_DIM), tl.float32)
    for j in range(num_blocks):
        block = first + j
        row = ring_row + (block - tl.where(block >= capacity, capacity, 0)) * TILE
        k = k_desc.load([row, head * HEAD_DIM])
        scores = tl.dot(q, tl.trans(k), input_precision="ieee")
        new_peak = tl.maximum(peak, tl.max(scores, axis=1) * scale)
        weights = tl.exp2(scores * scale - new_peak[:, None])
        fade = tl.exp2(peak - new_peak)
        total = total * fade + tl.sum(weights, axis=1)
        acc = acc * fade[:, None]
        v = v_desc.load([row, head * HEAD_DIM])
        acc = tl.dot(weights.to(v.dtype), v, acc, input_precision="ieee")
        peak = new_peak
    rows = tl.arange(0, TILE)
    columns = tl.arange(0, HEAD_DIM)
    if slot < 0:
        offset = (q_row + rows)[:, None] * DIM + head * HEAD_DIM + columns[None, :]
        tl.store(out_ptr + offset, (acc / total[:, None]).to(out_ptr.dtype.element_ty))
    else:
        tl.store(partial_ptr + (slot * TILE + rows)[:, None] * HEAD_DIM + columns[None, :], acc)
        tl.store(stats_ptr + slot * 2 * TILE + rows, peak)
        tl.store(stats_ptr + slot * 2 * TILE + TILE + rows, total)


@triton.jit
def merge_kernel(
    out_ptr, partial_ptr, stats_ptr, merges_ptr, DIM: tl.constexpr, HEAD_DIM: tl.constexpr, TILE: tl.constexpr, ROWS: tl.constexpr
):
    """Parts in ascending order, always: the same numbers on every run."""
    merge_ptr = merges_ptr + tl.program_id(0) * 4
    q_row, head, first_slot, num_parts = tl.load(merge_ptr), tl.load(merge_ptr + 1), tl.load(merge_ptr + 2), tl.load(merge_ptr + 3)
    rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, HEAD_DIM)
    peak = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    acc = tl.zeros((ROWS, HEAD_DIM), tl.float32)
    for part in range(num_parts):
        slot = first_slot + part
        part_peak = tl.load(stats_ptr + slot * 2 * TILE + rows)
        new_peak = tl.maximum(peak, part_peak)
        fade, weight = tl.exp2(peak - new_peak), tl.exp2(part_peak - new_peak)
        total = total * fade + tl.load(stats_ptr + slot * 2 * TILE + TILE + rows) * weight
        part_acc = tl.load(partial_ptr + (slot * TILE + rows)[:, None] * HEAD_DIM + columns[None, :])
        acc = acc * fade[:, None] + part_acc * weight[:, None]
        peak = new_peak
    offset = (q_row + rows)[:, None] * DIM + head * HEAD_DIM + columns[None, :]
    tl.store(out_ptr + offset, (acc / total[:, None]).to(out_ptr.dtype.element_ty))


def _tile(sessions: tuple[Session, ...], frame_tokens: int | None) -> int | None:
    """The largest tile that everything is a multiple of."""
    sizes = [n for s in sessions for n in (frame_tokens or s.q_len, s.capacity, s.first, s.kv_len)]
    return next((tile for tile in TILES if not any(n % tile for n in sizes)), None)


def unsupported(q: Tensor, sessions: tuple[Session, ...], num_heads: int, frame_tokens: int | None) -> str | None:
    """What stands against the Triton kernel, naming what is supported."""
    dtypes = (*DTYPES, torch.float32) if INTERPRETED else DTYPES
    if q.dtype not in dtypes:
        return f"q must be one of {', '.join(map(str, dtypes))}, got {q.dtype}"
    if q.shape[1] // num_heads not in HEAD_DIMS:
        return f"the width of a head must be one of {HEAD_DIMS}, got {q.shape[1] // num_heads}"
    if q.numel() >= 2**31:
        return f"q must have fewer than 2^31 elements, got {q.numel()}"
    if _tile(sessions, frame_tokens) is None:
        return f"queries, frames, rings and windows must be multiples of one of {tuple(TILES)} rows, got {sessions}, frames {frame_tokens}"
    return None


@lru_cache(maxsize=256)
def _on_device(plan: Plan, device: torch.device) -> tuple[Tensor, Tensor]:
    """The plan's numbers as int32 tensors; kept, so that a captured graph finds them where they were."""
    items, merges = (torch.tensor(rows, dtype=torch.int32) for rows in (plan.items, plan.merges))
    return items.to(device), merges.to(device)


def _num_processors(device: torch.device) -> int:
    return INTERPRETED_WORKERS if INTERPRETED else torch.cuda.get_device_properties(device).multi_processor_count


def launch(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, sessions: tuple[Session, ...], num_heads: int, frame_tokens: int | None,
    num_workers: int | None = None,
) -> Tensor:  # fmt: skip
    """Arguments already checked for shape; see the package. The first call with new lengths copies a plan to the device.

    num_workers: for how many processors to plan, the device's own if None; for one, nothing is ever split.
    """
    check_launch(q, k_cache, v_cache)
    reason = unsupported(q, sessions, num_heads, frame_tokens)
    if reason is not None:
        raise ValueError(reason)
    tile = _tile(sessions, frame_tokens)
    assert tile is not None
    plan = make_plan(sessions, num_heads, tile, frame_tokens, num_workers or _num_processors(q.device))
    items, merges = _on_device(plan, q.device)
    dim, head_dim = q.shape[1], q.shape[1] // num_heads
    out = torch.empty_like(q)
    partial = q.new_empty(plan.num_slots, tile, head_dim, dtype=torch.float32)
    stats = q.new_empty(plan.num_slots, 2, tile, dtype=torch.float32)
    descriptors = [TensorDescriptor.from_tensor(t, [tile, head_dim]) for t in (q, k_cache, v_cache)]
    num_warps, num_stages = TILES[tile]
    sizes = {"DIM": dim, "HEAD_DIM": head_dim, "TILE": tile}
    attention_kernel[(len(plan.items),)](
        *descriptors, out, partial, stats, items, head_dim**-0.5 * LOG2_E, **sizes, num_warps=num_warps, num_stages=num_stages
    )
    if plan.merges:
        rows = min(MERGE_ROWS, tile)
        merge_kernel[(len(plan.merges), tile // rows)](out, partial, stats, merges, **sizes, ROWS=rows, num_warps=4)
    return out


def shipped() -> list[Variant]:
    if INTERPRETED:
        raise RuntimeError("compiling needs the interpreter off")
    variants = []
    for tile, (num_warps, num_stages) in TILES.items():
        for head_dim in HEAD_DIMS:
            for element in (TYPE_NAMES[dtype] for dtype in DTYPES):
                sizes = {"DIM": 12 * head_dim, "HEAD_DIM": head_dim, "TILE": tile}
                name = f"{element} tile {tile} head {head_dim}"
                descriptor = f"tensordesc<{element}[{tile}, {head_dim}]>"
                types = dict.fromkeys(("q_desc", "k_desc", "v_desc"), descriptor)
                buffers = {"out_ptr": f"*{element}", "partial_ptr": "*fp32", "stats_ptr": "*fp32"}
                types |= buffers | {"items_ptr": "*i32", "scale": "fp32"}
                variants.append(
                    Variant(
                        name=f"attention {name}", kernel=attention_kernel, types=types, constants=sizes,
                        num_warps=num_warps, num_stages=num_stages, tensor_cores=True,
                    )
                )  # fmt: skip
                variants.append(
                    Variant(
                        name=f"merge {name}", kernel=merge_kernel, types=buffers | {"merges_ptr": "*i32"},
                        constants=sizes | {"ROWS": MERGE_ROWS}, num_warps=4, num_stages=3,
                    )
                )  # fmt: skip
    return variants
