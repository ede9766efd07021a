"""The work list of window attention: every key exactly once, processors busy, nothing depends on chance."""

from __future__ import annotations

import pytest

from kernels.window_attention.plan import ITEM_COST, PART_COST, Session, make_plan

SMS = 132
FRAME = 1024


def window(q_frames: int, kv_frames: int, ring_row: int = 0, first: int = 0, capacity: int = 21) -> Session:
    return Session(q_frames * FRAME, ring_row, capacity * FRAME, first * FRAME, kv_frames * FRAME)


def busy(plan) -> float:
    """The share of all processors' time that is spent on key blocks, items going to whoever is free first."""
    free = [0.0] * SMS
    for item in plan.items:
        free.sort()
        free[0] += item.num_blocks + ITEM_COST + (PART_COST if item.slot >= 0 else 0)
    return sum(item.num_blocks for item in plan.items) / (SMS * max(free))


BATCHES = {
    "one": (window(3, 21),),
    "ragged": tuple(window(3, n) for n in (6, 12, 18, 21)),
    "wrapped": (window(2, 20, first=15),),
    "short": (window(1, 1), window(3, 3)),
}


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("frame_tokens", [None, FRAME])
def test_every_tile_sees_each_of_its_keys_once(name, frame_tokens) -> None:
    sessions = BATCHES[name]
    plan = make_plan(sessions, 12, 128, frame_tokens, SMS)
    seen: dict[tuple[int, int], list[int]] = {}
    for item in plan.items:
        blocks = [(item.first_block + j) % item.capacity_blocks for j in range(item.num_blocks)]
        seen.setdefault((item.q_row, item.head), []).extend(blocks)
    q_row = 0
    for session in sessions:
        for row in range(0, session.q_len, 128):
            newer = (session.q_len - 1 - row) // FRAME if frame_tokens else 0
            expected = [(session.first // 128 + j) % (session.capacity // 128) for j in range(session.kv_len // 128 - newer * 8)]
            for head in range(12):
                assert sorted(seen.pop((q_row + row, head))) == sorted(expected)
        q_row += session.q_len
    assert not seen


@pytest.mark.parametrize("name", BATCHES)
def test_partial_results_are_all_merged(name) -> None:
    plan = make_plan(BATCHES[name], 12, 128, None, SMS)
    slots = sorted(item.slot for item in plan.items if item.slot >= 0)
    assert slots == list(range(plan.num_slots))
    assert slots == [merge.first_slot + i for merge in plan.merges for i in range(merge.num_parts)]
    owners = {item.slot: (item.q_row, item.head) for item in plan.items if item.slot >= 0}
    for merge in plan.merges:
        assert {owners[merge.first_slot + i] for i in range(merge.num_parts)} == {(merge.q_row, merge.head)}


@pytest.mark.parametrize(
    ("sessions", "at_least"),
    [
        ((window(3, 21),), 0.95),  # 288 tiles on 132 processors: 0.73 without splitting
        ((window(2, 21),), 0.93),
        ((window(1, 21),), 0.89),
        ((window(3, 6),), 0.90),
        (BATCHES["ragged"], 0.95),
        (tuple(window(3, 21) for _ in range(8)), 0.96),
    ],
)
def test_processors_are_busy(sessions, at_least) -> None:
    assert busy(make_plan(sessions, 12, 128, None, SMS)) >= at_least


def test_equal_waves_are_not_split() -> None:
    """132 tiles on 132 processors gain nothing from splitting."""
    plan = make_plan((Session(11 * 128, 0, 4096, 0, 4096),), 12, 128, None, SMS)
    assert plan.num_slots == 0 and len(plan.items) == SMS
