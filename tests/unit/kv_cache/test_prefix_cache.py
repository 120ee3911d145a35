"""What is found again, and what is not, by hand: blocks of 4 tokens, a window of 8."""

import pytest

from tandem.core.sampling_params import OutputParams, SamplingParams, StoppingParams
from tandem.core.sequence import Sequence
from tandem.kv_cache.block_table import RELEASED
from tandem.kv_cache.group import KvGroup
from tandem.kv_cache.kv_allocator import KvAllocator
from tandem.kv_cache.prefix_cache import PrefixCache

BLOCK_SIZE = 4
SLIDING = KvGroup("sliding_attention", (0, 1), 1, 8, 8)
FULL = KvGroup("full_attention", (2,), 1, 8, None)


class Cache:
    """An allocator with its prefix cache, and sequences that compute on demand."""

    def __init__(self, num_full=32, num_sliding=32, is_enabled=True):
        self.kv = KvAllocator([SLIDING, FULL], {SLIDING.name: num_sliding, FULL.name: num_full}, BLOCK_SIZE)
        self.prefixes = PrefixCache(self.kv, is_enabled)
        self._num_sequences = 0

    def sequence(self, token_ids, **fields):
        self._num_sequences += 1
        return Sequence(self._num_sequences, tuple(token_ids), SamplingParams(), StoppingParams(9), **fields)

    def num_found(self, token_ids, **fields):
        return len(self.prefixes.find(self.sequence(token_ids, **fields)))

    def enter(self, token_ids, **fields):
        """Begins a sequence with what is found, and computes the rest of its prompt but the last token."""
        sequence = self.sequence(token_ids, **fields)
        shared = self.prefixes.find(sequence)
        self.kv.share(sequence.sequence_id, shared)
        sequence.num_computed_tokens = len(shared) * BLOCK_SIZE
        self.compute(sequence, len(token_ids) - 1)
        return sequence

    def enter_in_chunks(self, token_ids):
        """Begins a sequence with nothing, and computes its prompt block by block."""
        sequence = self.sequence(token_ids)
        self.kv.share(sequence.sequence_id, ())
        for num_tokens in range(BLOCK_SIZE, len(token_ids), BLOCK_SIZE):
            self.compute(sequence, num_tokens)
        return sequence

    def compute(self, sequence, num_tokens):
        assert self.kv.reserve(sequence.sequence_id, num_tokens)
        sequence.num_computed_tokens = num_tokens
        self.prefixes.publish(sequence)
        self.kv.release_unseen(sequence.sequence_id, num_tokens)
        self.kv.check_integrity()

    def leave(self, sequence):
        self.kv.release(sequence.sequence_id)
        self.kv.check_integrity()


def test_a_running_sequence_and_one_that_ended_are_found_alike():
    cache = Cache()
    sequence = cache.enter(range(21))
    assert cache.num_found(range(21)) == 5
    cache.leave(sequence)
    assert cache.num_found(range(21)) == 5
    assert cache.kv.usage == 0.0


def test_the_last_token_is_always_computed():
    cache = Cache()
    cache.enter(range(21))
    assert [cache.num_found(range(count)) for count in (20, 21, 22)] == [4, 5, 5]


def test_what_is_not_computed_yet_is_not_found():
    cache = Cache()
    sequence = cache.enter(range(7))
    sequence.committed.extend([7, 8, 9])  # judged in a round whose KV is yet to come
    cache.prefixes.publish(sequence)
    assert cache.num_found(range(12)) == 1


def test_the_output_is_found_by_the_next_turn():
    cache = Cache()
    sequence = cache.enter(range(10))
    sequence.committed.extend(range(10, 17))
    cache.compute(sequence, 16)
    cache.leave(sequence)
    assert cache.num_found(range(30)) == 4


def test_other_tokens_end_the_prefix():
    cache = Cache()
    cache.enter(range(21))
    assert cache.num_found([*range(9), 50, *range(10, 21)]) == 2
    assert cache.num_found([50, *range(1, 21)]) == 0


def test_only_equal_salts_share():
    cache = Cache()
    cache.enter(range(21), cache_salt="one")
    assert cache.num_found(range(21), cache_salt="one") == 5
    assert cache.num_found(range(21), cache_salt="other") == cache.num_found(range(21)) == 0


def test_a_prompt_whose_rows_are_asked_for_is_computed_but_shared():
    cache = Cache()
    cache.enter(range(21), output=OutputParams(prompt_logprobs=True))
    assert cache.num_found(range(21), output=OutputParams(prompt_logprobs=True)) == 0
    assert cache.num_found(range(21)) == 5


def test_nothing_is_found_when_it_is_off():
    cache = Cache(is_enabled=False)
    cache.enter(range(21))
    assert cache.num_found(range(21)) == 0


def test_shared_blocks_are_the_same_and_the_rest_is_not():
    cache = Cache()
    one = cache.enter(range(12))
    other = cache.enter([*range(9), 50, 51, 52])
    for group in (SLIDING.name, FULL.name):
        ours, theirs = (cache.kv.block_ids(sequence.sequence_id, group) for sequence in (one, other))
        assert ours[:2] == theirs[:2] and ours[2] != theirs[2]
    cache.leave(one)
    assert cache.num_found(range(9)) == 2
    cache.leave(other)
    assert cache.kv.usage == 0.0


def test_blocks_behind_the_window_need_not_be_there():
    cache = Cache(num_sliding=4)
    cache.leave(cache.enter_in_chunks(range(41)))
    # Ten blocks were computed, in a sliding pool of four: the last two are what a query at position 40 sees.
    again = cache.enter(range(41))
    table = cache.kv.block_ids(again.sequence_id, SLIDING.name)
    assert table[:8] == [RELEASED] * 8 and RELEASED not in table[8:]
    assert RELEASED not in cache.kv.block_ids(again.sequence_id, FULL.name)


def test_a_prefix_that_ends_where_the_window_is_gone_is_not_found():
    cache = Cache(num_sliding=4)
    cache.leave(cache.enter_in_chunks(range(41)))
    assert cache.num_found([*range(20), *range(60, 81)]) == 0  # the full group has five blocks of it
    assert cache.num_found([*range(40), 60]) == 10


def test_the_longest_prefix_that_suits_both_groups_counts():
    cache = Cache(num_sliding=6)
    cache.leave(cache.enter_in_chunks(range(41)))
    # The sliding group keeps blocks 4..9; a query at position 24 sees blocks 4 and 5.
    assert cache.num_found([*range(24), 60]) == 6
    assert cache.num_found([*range(20), 60]) == 0


def test_the_end_of_what_was_used_longest_ago_goes_first():
    cache = Cache(num_full=10)
    cache.leave(cache.enter(range(17)))
    cache.leave(cache.enter(range(100, 117)))
    taker = cache.enter(range(200, 213))  # takes three: two were never used
    assert cache.kv.num_evictions == 1
    assert (cache.num_found(range(17)), cache.num_found(range(100, 117))) == (3, 4)
    cache.leave(taker)


def test_held_blocks_are_never_evicted():
    cache = Cache(num_full=6)
    held = cache.enter(range(17))
    assert not cache.kv.reserve(99, 13)
    assert cache.kv.reserve(98, 8)
    cache.kv.check_integrity()
    assert cache.num_found(range(17)) == 4
    cache.leave(held)


def test_room_is_not_asked_twice_for_what_others_hold():
    cache = Cache(num_full=6)
    holder = cache.enter(range(17))
    assert not cache.kv.has_room_for(24, {})
    shared = cache.prefixes.find(cache.sequence(range(17)))
    assert cache.kv.has_room_for(24, {}, shared)
    assert not cache.kv.has_room_for(25, {}, shared)
    cache.leave(holder)
    # Nobody holds them any more: they are part of the room.
    assert cache.kv.has_room_for(24, {}, shared)
    assert not cache.kv.has_room_for(25, {}, shared)


def test_of_two_that_computed_the_same_the_held_one_stays_findable():
    cache = Cache()
    prompt = range(9)
    both = [cache.sequence(prompt), cache.sequence(prompt)]
    for sequence in both:  # at once: neither finds the other
        cache.kv.share(sequence.sequence_id, ())
    for sequence in both:
        cache.compute(sequence, 8)
    cache.leave(both[0])
    rows = OutputParams(prompt_logprobs=True)
    third = cache.enter(prompt, output=rows)  # computes the same once more, while nobody holds the first one's
    found = cache.enter(prompt)
    for group in (SLIDING.name, FULL.name):
        assert cache.kv.block_ids(found.sequence_id, group) == cache.kv.block_ids(third.sequence_id, group)


def test_what_may_be_found_is_never_published_twice():
    cache = Cache()
    sequence = cache.enter(range(9))
    pool = cache.kv.pools[FULL.name]
    with pytest.raises(AssertionError, match="published"):
        pool.publish(cache.kv.block_ids(sequence.sequence_id, FULL.name)[0], b"another")


def test_a_written_block_that_others_share_is_noticed():
    cache = Cache()
    sequence = cache.enter(range(9))
    cache.kv.reserve(sequence.sequence_id, 12)
    cache.kv.pools[FULL.name].publish(cache.kv.block_ids(sequence.sequence_id, FULL.name)[2], b"unfinished")
    with pytest.raises(AssertionError, match="written"):
        cache.kv.check_integrity()
