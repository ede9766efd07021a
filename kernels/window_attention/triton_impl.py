"""One program a work item of the plan: a tile of queries by one head over a run of key blocks; then the merge of split tiles.

Windows and frames are whole tiles, so there is no tail and no mask in the loop. Loads go through host-made TMA descriptors; at tiles
of 128 with 8 warps each of the two consumer groups owns 64 query rows.
In 8 bits the softmax weights of a key block are spread over the range of e4m3: each is multiplied by its value's factor relative to the
block's largest, and by 256. The product starts from zero for every block and is added in float32, as the tensor cores' own sums
of 8-bit products keep fewer bits than that.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from kernels.fp8 import FP8
from kernels.launch import INTERPRETED, TYPE_NAMES, Variant, check_launch
from kernels.tuning import Parameters, parameters
from kernels.window_attention.plan import Plan, Session, make_plan

TILES = (128, 64)  # rows of a tile of queries and of a block of keys
HEAD_DIMS = (64, 128)
DTYPES = (torch.bfloat16, torch.float16)
_BY_TILE: dict[int, Parameters] = {128: {"num_warps": 8, "num_stages": 2}, 64: {"num_warps": 4, "num_stages": 3}}
DEFAULTS = {f"{bits} bits, tile {t}, head {h}": p for bits in (16, 8) for t, p in _BY_TILE.items() for h in HEAD_DIMS}
PARAMETERS = parameters("window_attention", DEFAULTS)
# Of attention in 8 bits: what softmax weights are rounded to, and the output.
WEIGHTS8, OUT8 = tl.float8e4nv, torch.bfloat16
MERGE_ROWS = 16
INTERPRETED_WORKERS = 5
LOG2_E = math.log2(math.e)


@triton.jit
def attention_kernel(
    q_desc, k_desc, v_desc, q_scale_ptr, k_scale_ptr, v_scale_ptr, out_ptr, partial_ptr, stats_ptr, items_ptr, num_queries, num_rows,
    scale, DIM: tl.constexpr, HEAD_DIM: tl.constexpr, TILE: tl.constexpr, WEIGHTS8: tl.constexpr,
):  # fmt: skip
    """scale includes log2(e), so that exponentials are powers of two. WEIGHTS8 is None for 16-bit inputs, which have no factors."""
    item_ptr = items_ptr + tl.program_id(0) * 8
    q_row, head, ring_row = tl.load(item_ptr), tl.load(item_ptr + 1), tl.load(item_ptr + 2)
    capacity, first, num_blocks, slot = tl.load(item_ptr + 3), tl.load(item_ptr + 4), tl.load(item_ptr + 5), tl.load(item_ptr + 6)
    rows = tl.arange(0, TILE)
    q = q_desc.load([q_row, head * HEAD_DIM])
    row_scale = tl.full((TILE,), scale, tl.float32)
    if WEIGHTS8 is not None:
        row_scale *= tl.load(q_scale_ptr + head * num_queries + q_row + rows)
    peak = tl.full((TILE,), float("-inf"), tl.float32)
    total = tl.zeros((TILE,), tl.float32)
    acc = tl.zeros((TILE, HEAD_DIM), tl.float32)
    for j in range(num_blocks):
        block = first + j
        row = ring_row + (block - tl.where(block >= capacity, capacity, 0)) * TILE
        k = k_desc.load([row, head * HEAD_DIM])
        scores = tl.dot(q, tl.trans(k), input_precision="ieee")
        if WEIGHTS8 is not None:
            scores *= tl.load(k_scale_ptr + head * num_rows + row + rows)[None, :]
        new_peak = tl.maximum(peak, tl.max(scores, axis=1) * row_scale)
        weights = tl.exp2(scores * row_scale[:, None] - new_peak[:, None])
        fade = tl.exp2(peak - new_peak)
        total = total * fade + tl.sum(weights, axis=1)
        acc = acc * fade[:, None]
        v = v_desc.load([row, head * HEAD_DIM])
        if WEIGHTS8 is None:
            acc = tl.dot(weights.to(v.dtype), v, acc, input_precision="ieee")
        else:
            v_scale = tl.load(v_scale_ptr + head * num_rows + row + rows)
            largest = tl.max(v_scale, axis=0)
            weights = (weights * (v_scale * (256.0 / largest))[None, :]).to(WEIGHTS8)
            acc += tl.dot(weights, v.to(WEIGHTS8), input_precision="ieee") * (largest / 256.0)
        peak = new_peak
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
    dtypes = (*DTYPES, FP8, *((torch.float32,) if INTERPRETED else ()))
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
    q_scale: Tensor | None, k_scale: Tensor | None, v_scale: Tensor | None, num_workers: int | None = None,
) -> Tensor:  # fmt: skip
    """Arguments already checked for shape; see the package. The first call with new lengths copies a plan to the device.

    num_workers: for how many processors to plan, the device's own if None; for one, nothing is ever split.
    """
    check_launch(q, k_cache, v_cache, q_scale, k_scale, v_scale)
    reason = unsupported(q, sessions, num_heads, frame_tokens)
    if reason is not None:
        raise ValueError(reason)
    tile = _tile(sessions, frame_tokens)
    assert tile is not None
    plan = make_plan(sessions, num_heads, tile, frame_tokens, num_workers or _num_processors(q.device))
    items, merges = _on_device(plan, q.device)
    dim, head_dim, fp8 = q.shape[1], q.shape[1] // num_heads, q.dtype == FP8
    out = torch.empty_like(q, dtype=OUT8 if fp8 else q.dtype)
    partial, stats = (torch.empty(plan.num_slots, *shape, device=q.device) for shape in ((tile, head_dim), (2, tile)))
    descriptors = [TensorDescriptor.from_tensor(t, [tile, head_dim]) for t in (q, k_cache, v_cache)]
    sizes = {"DIM": dim, "HEAD_DIM": head_dim, "TILE": tile}
    attention_kernel[(len(plan.items),)](
        *descriptors, *(stats if scale is None else scale for scale in (q_scale, k_scale, v_scale)), out, partial, stats, items,
        q.shape[0], k_cache.shape[0], head_dim**-0.5 * LOG2_E, **sizes, WEIGHTS8=WEIGHTS8 if fp8 else None,
        **PARAMETERS[f"{8 if fp8 else 16} bits, tile {tile}, head {head_dim}"],
    )  # fmt: skip
    if plan.merges:
        rows = min(MERGE_ROWS, tile)
        merge_kernel[(len(plan.merges), tile // rows)](out, partial, stats, merges, **sizes, ROWS=rows, num_warps=4)
    return out


def variants(case: str, chosen: Parameters) -> list[Variant]:
    bits, tile, head_dim = (int(number) for number in re.findall(r"\d+", case))
    sizes = {"DIM": 12 * head_dim, "HEAD_DIM": head_dim, "TILE": tile}
    found = []
    for element in (TYPE_NAMES[dtype] for dtype in ((FP8,) if bits == 8 else DTYPES)):
        out = TYPE_NAMES[OUT8] if bits == 8 else element
        descriptor = f"tensordesc<{element}[{tile}, {head_dim}]>"
        buffers = {"out_ptr": f"*{out}", "partial_ptr": "*fp32", "stats_ptr": "*fp32"}
        types = dict.fromkeys(("q_desc", "k_desc", "v_desc"), descriptor) | dict.fromkeys(("num_queries", "num_rows"), "i32")
        types |= dict.fromkeys(("q_scale_ptr", "k_scale_ptr", "v_scale_ptr"), "*fp32") | {"items_ptr": "*i32", "scale": "fp32"}
        name = f"{element} tile {tile} head {head_dim}"
        constants: dict[str, Any] = sizes | {"WEIGHTS8": WEIGHTS8 if bits == 8 else None} | chosen
        types |= buffers
        found.append(Variant(name=f"attention {name}", kernel=attention_kernel, types=types, constants=constants, tensor_cores=True))
        types, constants = buffers | {"merges_ptr": "*i32"}, sizes | {"ROWS": MERGE_ROWS, "num_warps": 4}
        found.append(Variant(name=f"merge {name}", kernel=merge_kernel, types=types, constants=constants))
    return found
