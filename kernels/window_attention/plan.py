"""How the attention of a batch of windows is cut into work items: pure Python, no tensors.

A tile of queries by one head attending to all its keys is one item. There are rarely as many tiles as a GPU has processors: one
session of three 1024-token frames and 12 heads makes 288 tiles of 128 rows, so 132 processors work three waves where 2.2 would do. So
as many tiles as fill whole waves stay whole, and the keys of the rest are split between several items, whose partial results
are merged. Items run longest first, so that sessions of different lengths fill each other's gaps.
The block-causal order costs nothing here: a tile of an earlier frame is an item with fewer keys.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

# What an item costs beside its key blocks (loading queries, writing results), in key blocks; a part also writes and re-reads float32.
ITEM_COST, PART_COST = 1.0, 2.0
MAX_PARTS = 16


class Session(NamedTuple):
    """One session's window. Its queries follow the previous session's in q; its keys are rows of a ring inside the caches."""

    q_len: int
    ring_row: int  # the cache row at which its ring begins
    capacity: int  # rows in its ring
    first: int  # offset of the oldest key in the ring
    kv_len: int  # keys in the window, oldest first, wrapping around the end of the ring


class Item(NamedTuple):
    """Blocks are TILE rows. slot: which partial result this item writes, -1: it has all keys and writes the output itself."""

    q_row: int
    head: int
    ring_row: int
    capacity_blocks: int
    first_block: int
    num_blocks: int
    slot: int
    unused: int = 0  # eight integers: a power of two for whoever reads them


class Merge(NamedTuple):
    """A tile of the output that is put together from num_parts partial results, the first of which is first_slot."""

    q_row: int
    head: int
    first_slot: int
    num_parts: int


class Plan(NamedTuple):
    items: tuple[Item, ...]
    merges: tuple[Merge, ...]
    num_slots: int


@lru_cache(maxsize=256)
def make_plan(sessions: tuple[Session, ...], num_heads: int, tile: int, frame_tokens: int | None, num_workers: int) -> Plan:
    """The plan with the earliest end among those that keep some number of whole waves and split the rest into equal parts."""
    tiles = sorted(_tiles(sessions, num_heads, tile, frame_tokens), key=lambda item: -item.num_blocks)
    waves = len(tiles) // num_workers
    best: tuple[float, int, int] | None = None
    for num_whole in sorted({len(tiles), waves * num_workers, max(waves - 1, 0) * num_workers}, reverse=True):
        for num_parts in range(1, MAX_PARTS + 1) if num_whole < len(tiles) else [1]:
            end = _end(tiles, num_whole, num_parts, num_workers)
            if best is None or end < best[0]:
                best = (end, num_whole, num_parts)
    assert best is not None
    return _cut(tiles, best[1], best[2])


def _tiles(sessions: tuple[Session, ...], num_heads: int, tile: int, frame_tokens: int | None) -> Iterator[Item]:
    q_row = 0
    for session in sessions:
        for row in range(0, session.q_len, tile):
            unseen = 0 if frame_tokens is None else (session.q_len - 1 - row) // frame_tokens * frame_tokens
            blocks = (session.kv_len - unseen) // tile
            for head in range(num_heads):
                yield Item(q_row + row, head, session.ring_row, session.capacity // tile, session.first // tile, blocks, -1)
        q_row += session.q_len


def _parts(num_blocks: int, num_parts: int) -> list[int]:
    num_parts = min(num_parts, num_blocks)
    return [num_blocks // num_parts + (i < num_blocks % num_parts) for i in range(num_parts)]


def _end(tiles: list[Item], num_whole: int, num_parts: int, num_workers: int) -> float:
    """When the last item ends, each going to the processor that is free first, in key blocks."""
    costs = [item.num_blocks + ITEM_COST for item in tiles[:num_whole]]
    for item in tiles[num_whole:]:
        parts = _parts(item.num_blocks, num_parts)
        costs += [n + ITEM_COST + (PART_COST if len(parts) > 1 else 0.0) for n in parts]
    busy = [0.0] * num_workers
    for cost in costs:
        heapq.heapreplace(busy, busy[0] + cost)
    return max(busy)


def _cut(tiles: list[Item], num_whole: int, num_parts: int) -> Plan:
    items, merges, slot = list(tiles[:num_whole]), [], 0
    for item in tiles[num_whole:]:
        lengths = _parts(item.num_blocks, num_parts)
        if len(lengths) == 1:
            items.append(item)
            continue
        merges.append(Merge(item.q_row, item.head, slot, len(lengths)))
        block = item.first_block
        for length in lengths:
            items.append(item._replace(first_block=block % item.capacity_blocks, num_blocks=length, slot=slot))
            block, slot = block + length, slot + 1
    items.sort(key=lambda item: -item.num_blocks)
    return Plan(tuple(items), tuple(merges), slot)
