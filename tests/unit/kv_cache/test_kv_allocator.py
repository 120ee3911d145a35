import random

import pytest

from tandem.kv_cache.block_pool import BlockPool
from tandem.kv_cache.block_table import RELEASED, BlockTable
from tandem.kv_cache.group import KvGroup
from tandem.kv_cache.kv_allocator import KvAllocator, num_blocks_for

BLOCK_SIZE = 4
WINDOW = 8
SLIDING = KvGroup("sliding_attention", (0, 1), 1, 8, WINDOW)
FULL = KvGroup("full_attention", (2,), 1, 8, None)


def test_a_pool_gives_each_block_once_and_notices_a_second_return():
    pool = BlockPool(4)
    taken = pool.take(4)
    assert sorted(taken) == [0, 1, 2, 3]
    assert pool.num_free == 0
    pool.give_back([taken[0]])
    with pytest.raises(AssertionError, match="twice"):
        pool.give_back([taken[0]])
    pool.check_integrity(taken[1:])
    with pytest.raises(AssertionError):
        pool.check_integrity(taken)


def test_a_table_releases_exactly_the_blocks_that_no_later_query_sees():
    pool = BlockPool(8)
    table = BlockTable(pool, BLOCK_SIZE, WINDOW)
    table.reserve(20)
    for next_position in range(21):
        table.release_unseen(next_position)
        for index, block_id in enumerate(table.block_ids):
            last_key = (index + 1) * BLOCK_SIZE - 1
            is_visible_to_a_later_query = last_key > next_position - WINDOW
            assert (block_id == RELEASED) == (not is_visible_to_a_later_query)
        pool.check_integrity(table.held)
    table.release()
    assert pool.num_free == 8
    assert table.block_ids == []


def test_a_full_table_releases_nothing_before_its_end():
    pool = BlockPool(8)
    table = BlockTable(pool, BLOCK_SIZE, None)
    table.reserve(32)
    table.release_unseen(32)
    assert RELEASED not in table.block_ids
    assert table.num_missing(33) == 1


def test_reserving_takes_from_every_group_or_from_none():
    kv = KvAllocator([SLIDING, FULL], {SLIDING.name: 2, FULL.name: 8}, BLOCK_SIZE)
    assert not kv.reserve(1, 12)
    assert kv.usage == 0.0
    assert kv.reserve(1, 8)
    assert not kv.reserve(2, 1)
    kv.check_integrity()
    kv.release(1)
    assert kv.usage == 0.0


def test_room_counts_what_running_sequences_are_about_to_take():
    kv = KvAllocator([SLIDING, FULL], {SLIDING.name: 100, FULL.name: 10}, BLOCK_SIZE)
    assert kv.reserve(1, 4)
    assert kv.has_room_for(9 * BLOCK_SIZE, {})
    assert kv.has_room_for(9 * BLOCK_SIZE, {1: 4})
    assert not kv.has_room_for(9 * BLOCK_SIZE, {1: 5})
    assert kv.can_ever_hold(10 * BLOCK_SIZE)
    assert not kv.can_ever_hold(10 * BLOCK_SIZE + 1)


def test_the_sliding_group_never_runs_out_before_the_full_one():
    rng = random.Random(0)
    max_sequences, max_step_tokens = 5, 12
    sizes = num_blocks_for([SLIDING, FULL], 400, BLOCK_SIZE, max_sequences, max_step_tokens)
    assert sizes[SLIDING.name] < sizes[FULL.name]
    kv = KvAllocator([SLIDING, FULL], {**sizes, FULL.name: 10_000}, BLOCK_SIZE)
    lengths: dict[int, int] = {}
    for _ in range(2_000):
        rows_left = max_step_tokens
        for sequence_id in range(max_sequences):
            if rng.random() < 0.02:
                kv.release(sequence_id)
                lengths.pop(sequence_id, None)
            rows = rng.randint(0, rows_left)
            if rows:
                rows_left -= rows
                lengths[sequence_id] = lengths.get(sequence_id, 0) + rows
                assert kv.reserve(sequence_id, lengths[sequence_id])
        for sequence_id, length in lengths.items():
            kv.release_unseen(sequence_id, length)
        kv.check_integrity()
