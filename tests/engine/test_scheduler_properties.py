"""Random lives of many sequences: no block leaks, none is used twice, everybody finishes."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_backend.engine.block_manager import BlockManager
from autoglm_backend.engine.scheduler import Row, Scheduler
from autoglm_backend.engine.sequence import Prompt, Sequence, Status
from autoglm_protocol.sampling import SamplingParams

SEGMENTS = ((0, 2), (2, 4), (4, 8))
BLOCK = 4


def sequence(ids: list[int], depth_index: int, max_tokens: int, priority: int, arrival_s: float) -> Sequence:
    positions = np.broadcast_to(np.arange(len(ids)), (3, len(ids)))
    return Sequence(
        tag="t",
        index=0,
        prompt=Prompt(ids=tuple(ids), positions_3T=positions, rope_delta=0),
        sampling=SamplingParams(),
        segments=SEGMENTS[: depth_index + 1],
        max_tokens=max_tokens,
        stop_ids=frozenset(),
        emit=lambda event: None,
        priority=priority,
        arrival_s=arrival_s,
    )


def run_rows(scheduler: Scheduler, rows: list[Row]) -> None:
    """What the model runner and the engine do to sequences, without a model."""
    for row in rows:
        assert row.start == row.sequence.num_computed
        for segment in range(len(row.sequence.segments)):
            assert len(row.sequence.blocks[segment]) * BLOCK >= row.stop
            row.sequence.kv_len[segment] = row.stop
    for row in rows:
        if row.samples and row.sequence.append(row.stop % 5) is not None:
            scheduler.finish(row.sequence)
        elif row.sequence.status is Status.RUNNING:
            scheduler.blocks.publish(row.sequence)


def assert_blocks_are_consistent(scheduler: Scheduler) -> None:
    for number, pool in enumerate(scheduler.blocks.pools):
        owners = Counter(
            block
            for s in (*scheduler.running, *scheduler.waiting)
            if number < len(s.segments)
            for block in s.blocks[number]
        )
        assert pool.num_used == len(owners)
        for block, count in owners.items():
            # Shared by several only as a published prefix; the pool's count is the number of owners.
            assert pool._references[block] == count
            assert count == 1 or block in pool._key_of


prompts = st.lists(st.integers(0, 3), min_size=1, max_size=14)
arrivals = st.lists(
    st.tuples(prompts, st.integers(0, 2), st.integers(1, 10), st.integers(-2, 2), st.booleans()),
    min_size=1,
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(arrivals, st.integers(6, 14), st.integers(1, 4), st.integers(1, 9), st.booleans())
def test_no_block_leaks_and_everybody_finishes(
    requests: list[tuple[list[int], int, int, int, bool]], num_blocks: int, batch: int, budget: int, prefix_cache: bool
) -> None:
    blocks = BlockManager(len(SEGMENTS), num_blocks, BLOCK, prefix_cache=prefix_cache)
    now = [0.0]
    scheduler = Scheduler(blocks, batch_limit=batch, max_step_tokens=budget, ageing_s=3.0, clock=lambda: now[0])
    everyone = [sequence(ids, d, n, p, float(i)) for i, (ids, d, n, p, _) in enumerate(requests)]
    to_abort = [s for s, r in zip(everyone, requests, strict=True) if r[4]]
    for arrived in everyone:
        scheduler.add(arrived)
    steps = 0
    while scheduler.has_work:
        rows = scheduler.schedule()
        assert sum(row.count for row in rows) <= budget
        assert len(scheduler.running) <= batch
        assert rows, "work waits and nothing runs"
        run_rows(scheduler, rows)
        assert_blocks_are_consistent(scheduler)
        now[0] += 1.0
        steps += 1
        if steps % 7 == 0 and to_abort:
            scheduler.finish(to_abort.pop())
        assert steps < 5000, "a sequence starves"
    assert all(pool.num_used == 0 for pool in blocks.pools)
    assert all(s.status is Status.FINISHED for s in everyone)


def test_an_urgent_request_overtakes_batch_work_and_batch_work_still_finishes() -> None:
    now = [0.0]
    blocks = BlockManager(1, 64, BLOCK)
    scheduler = Scheduler(blocks, batch_limit=1, max_step_tokens=8, ageing_s=5.0, clock=lambda: now[0])
    batch_work = sequence([1, 2], 0, 3, priority=10, arrival_s=0.0)
    scheduler.add(batch_work)
    order: list[int] = []
    for _ in range(200):
        # A new urgent request every step, more than the machine can serve.
        scheduler.add(sequence([3], 0, 2, priority=0, arrival_s=now[0]))
        rows = scheduler.schedule()
        order += [row.sequence.priority for row in rows]
        run_rows(scheduler, rows)
        now[0] += 1.0
        if batch_work.status is Status.FINISHED:
            break
    assert order[0] == 0
    assert batch_work.status is Status.FINISHED
    assert len(order) > 10


def test_a_background_sequence_gives_its_place_up_once_and_then_finishes() -> None:
    now = [0.0]
    blocks = BlockManager(1, 64, BLOCK)
    scheduler = Scheduler(blocks, batch_limit=1, max_step_tokens=8, ageing_s=1.0, clock=lambda: now[0])
    check = sequence([1, 2], 0, 5, priority=4, arrival_s=0.0)
    check.background = True
    scheduler.add(check)
    run_rows(scheduler, scheduler.schedule())
    scheduler.add(sequence([3], 0, 2, priority=0, arrival_s=0.0))
    order: list[int] = []
    for step in range(30):
        now[0] += 1.0
        scheduler.add(sequence([4 + step], 0, 1, priority=0, arrival_s=now[0]))
        rows = scheduler.schedule()
        order += [row.sequence.priority for row in rows]
        run_rows(scheduler, rows)
    assert order[:2] == [0, 0]
    assert check.status is Status.FINISHED
    assert check.num_preemptions == 1


def test_blocks_reserved_for_drafts_that_were_not_kept_are_given_back() -> None:
    blocks = BlockManager(len(SEGMENTS), 8, BLOCK, block_bytes=[10, 20, 40])
    guessing = sequence([1, 2, 3], 2, 9, 0, 0.0)
    assert blocks.reserve(guessing, 3 + 7)
    assert blocks.bytes_used == 3 * 70
    blocks.trim(guessing, 5)
    assert blocks.bytes_used == 2 * 70
    assert blocks.bytes_peak == guessing.kv_bytes_peak == 3 * 70
