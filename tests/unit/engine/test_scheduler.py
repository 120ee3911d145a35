import random

import pytest

from tandem.core.sampling_params import SamplingParams, StoppingParams
from tandem.core.sequence import FinishReason, Sequence
from tandem.engine.limits import EngineLimits
from tandem.engine.scheduler import Scheduler
from tandem.kv_cache.group import KvGroup
from tandem.kv_cache.kv_allocator import KvAllocator, num_blocks_for

BLOCK_SIZE = 4
GROUPS = (KvGroup("sliding_attention", (0,), 1, 8, 8), KvGroup("full_attention", (1,), 1, 8, None))
MAX_DRAFT_TOKENS = 4


def make_scheduler(kv_tokens=1000, max_sequences=4, max_step_tokens=16):
    limits = EngineLimits(
        max_sequences=max_sequences,
        max_step_tokens=max_step_tokens,
        max_draft_tokens=MAX_DRAFT_TOKENS,
        max_queue=100,
        max_context=100,
        kv_tokens=kv_tokens,
        block_size=BLOCK_SIZE,
    )
    sizes = num_blocks_for(GROUPS, kv_tokens, BLOCK_SIZE, max_sequences, max_step_tokens)
    return Scheduler(limits, KvAllocator(GROUPS, sizes, BLOCK_SIZE))


def make_sequence(sequence_id, num_prompt_tokens=5, max_tokens=20, k=4, first=None):
    """`first` is the first token of the prompt; by default no two sequences begin alike."""
    first = 100 * sequence_id if first is None else first
    return Sequence(
        sequence_id,
        tuple(range(first, first + num_prompt_tokens)),
        SamplingParams(),
        StoppingParams(max_tokens),
        num_speculative_tokens=k,
    )


def run(scheduler, drafts=None, accepted=0):
    """Schedules a step and commits as the round loop does: `accepted` drafts, if there are so many, and one token."""
    step = scheduler.schedule(drafts or {})
    for scheduled in step:
        sequence = scheduled.sequence
        is_chosen_from = scheduled.is_chosen_from
        sequence.num_computed_tokens += scheduled.num_committed_rows
        if is_chosen_from:
            kept = sequence.commit([7] * (min(accepted, len(scheduled.draft_token_ids)) + 1))
            sequence.num_computed_tokens += len(kept) - 1
        scheduler.settle(sequence)
        if sequence.finish_reason:
            scheduler.remove(sequence)
    scheduler.check_integrity()
    return [(s.sequence.sequence_id, s.num_committed_rows, len(s.draft_token_ids)) for s in step]


def test_a_prompt_longer_than_a_step_is_computed_in_chunks():
    scheduler = make_scheduler()
    scheduler.add(make_sequence(1, num_prompt_tokens=37))
    assert [run(scheduler) for _ in range(4)] == [[(1, 16, 0)], [(1, 16, 0)], [(1, 5, 0)], [(1, 1, 0)]]


def test_decodes_come_first_and_chunks_take_what_is_left():
    scheduler = make_scheduler()
    scheduler.add(make_sequence(1))
    run(scheduler)
    scheduler.add(make_sequence(2, num_prompt_tokens=30))
    assert run(scheduler, {1: [3, 3, 3, 3]}) == [(1, 1, 4), (2, 11, 0)]
    assert run(scheduler) == [(1, 1, 0), (2, 15, 0)]
    assert run(scheduler, {1: [3, 3, 3, 3]}) == [(1, 1, 4), (2, 4, 0)]
    assert run(scheduler, {1: [3], 2: [3, 3]}) == [(1, 1, 1), (2, 1, 2)]


def test_sequences_wait_for_a_slot_in_the_order_of_their_arrival():
    scheduler = make_scheduler()
    for sequence_id in range(6):
        scheduler.add(make_sequence(sequence_id, num_prompt_tokens=2, max_tokens=2))
    assert [sequence_id for sequence_id, *_ in run(scheduler)] == [0, 1, 2, 3]
    assert (scheduler.num_running, scheduler.num_waiting) == (4, 2)
    run(scheduler)  # the first four end here
    assert [sequence_id for sequence_id, *_ in run(scheduler)] == [4, 5]


def test_drafts_beyond_what_a_sequence_has_use_for_are_left_out():
    scheduler = make_scheduler()
    for sequence_id, max_tokens, k in ((1, 3, 4), (2, 2, 4), (3, 20, 2), (4, 20, 0)):
        scheduler.add(make_sequence(sequence_id, num_prompt_tokens=2, max_tokens=max_tokens, k=k))
    run(scheduler)
    drafts = {sequence_id: [3, 3, 3, 3] for sequence_id in range(1, 5)}
    # One token is left to sequence 2 after its first: the target's own.
    assert run(scheduler, drafts) == [(1, 1, 1), (2, 1, 0), (3, 1, 2), (4, 1, 0)]


def test_every_decode_gets_its_row_before_anybody_gets_drafts():
    scheduler = make_scheduler(max_step_tokens=6)
    for sequence_id in range(4):
        scheduler.add(make_sequence(sequence_id, num_prompt_tokens=1))
    run(scheduler)
    drafts = {sequence_id: [3, 3, 3, 3] for sequence_id in range(4)}
    assert run(scheduler, drafts) == [(0, 1, 2), (1, 1, 0), (2, 1, 0), (3, 1, 0)]


def test_drafts_are_given_up_before_anybody_is_preempted():
    scheduler = make_scheduler(kv_tokens=8)
    scheduler.add(make_sequence(1, num_prompt_tokens=7, max_tokens=2, k=4))
    run(scheduler)
    scheduler.sequences[0].stopping = StoppingParams(20)  # it now has use for drafts that no block is left for
    assert run(scheduler, {1: [3, 3, 3, 3]}) == [(1, 1, 0)]
    assert scheduler.num_preemptions == 0


def test_the_youngest_is_preempted_and_comes_back_first():
    scheduler = make_scheduler(kv_tokens=24)
    scheduler.add(make_sequence(1, num_prompt_tokens=4, max_tokens=20))
    scheduler.add(make_sequence(2, num_prompt_tokens=4, max_tokens=20))
    run(scheduler)
    scheduler.add(make_sequence(3, num_prompt_tokens=2, max_tokens=4))
    while scheduler.num_preemptions == 0:
        assert [sequence_id for sequence_id, *_ in run(scheduler)][:1] == [1]
    youngest = scheduler.sequences[scheduler.num_running]
    assert youngest.sequence_id == 2
    assert (youngest.num_computed_tokens, youngest.num_output_tokens > 0) == (0, True)
    finished = []
    while scheduler.sequences:
        before = scheduler.sequences
        run(scheduler)
        finished += [sequence.sequence_id for sequence in before if sequence.finish_reason]
    assert finished == [1, 2, 3]


def test_a_preempted_sequence_leaves_the_step_that_it_was_in():
    """An older prompt that still grows throws out a younger decode, already planned for this very step."""
    scheduler = make_scheduler(kv_tokens=40, max_step_tokens=8)
    scheduler.add(make_sequence(1, num_prompt_tokens=28, max_tokens=4))
    scheduler.add(make_sequence(2, num_prompt_tokens=2, max_tokens=30))
    young = scheduler.sequences[1]
    run(scheduler)
    scheduler._kv.reserve(young.sequence_id, 16)
    scheduler._slots[young.sequence_id] = scheduler._free_slots.pop()
    scheduler._waiting.remove(young)
    scheduler._running.append(young)
    young.committed.append(3)
    young.num_computed_tokens = 2
    steps = [run(scheduler) for _ in range(2)]
    assert steps == [[(2, 1, 0), (1, 7, 0)], [(2, 1, 0), (1, 7, 0)]]
    assert run(scheduler) == [(1, 6, 0)]
    assert young.num_computed_tokens == 0


def test_a_prompt_goes_on_where_another_of_the_same_beginning_is():
    scheduler = make_scheduler()
    scheduler.add(make_sequence(1, num_prompt_tokens=14, first=0))
    run(scheduler)
    scheduler.add(make_sequence(2, num_prompt_tokens=20, first=0))
    step = scheduler.schedule({})
    assert [(s.start, s.num_rows, s.is_entering) for s in step] == [(14, 1, False), (12, 8, True)]


def test_those_who_share_fit_together():
    scheduler = make_scheduler(kv_tokens=7 * BLOCK_SIZE)
    scheduler.add(make_sequence(1, num_prompt_tokens=13, max_tokens=3, first=0))
    run(scheduler)
    for sequence_id in (2, 3, 4):  # three blocks are everybody's, one is each one's own
        scheduler.add(make_sequence(sequence_id, num_prompt_tokens=13, max_tokens=3, first=0))
    assert run(scheduler) == [(1, 1, 0), (2, 1, 0), (3, 1, 0), (4, 1, 0)]


def test_a_preempted_sequence_finds_its_own_blocks_again():
    scheduler = make_scheduler()
    sequence = make_sequence(1, num_prompt_tokens=13)
    scheduler.add(sequence)
    run(scheduler)
    scheduler.preempt(sequence)
    assert (sequence.num_computed_tokens, scheduler.num_running) == (0, 0)
    (scheduled,) = scheduler.schedule({})
    assert (scheduled.start, scheduled.num_rows, scheduled.is_entering) == (12, 2, True)


def test_a_prompt_without_anything_to_share_starts_at_its_beginning_once():
    scheduler = make_scheduler()
    scheduler.add(make_sequence(1, num_prompt_tokens=37))
    steps = []
    for _ in range(4):
        steps += [(s.start, s.is_entering) for s in scheduler.schedule({})]
        run(scheduler)
    assert steps == [(0, True), (16, False), (32, False), (37, False)]


@pytest.mark.parametrize("seed", range(5))
def test_a_random_load_ends_with_every_token_and_every_block_back(seed):
    rng = random.Random(seed)
    scheduler = make_scheduler(kv_tokens=64)
    everyone = []
    for sequence_id in range(40):
        sequence = make_sequence(sequence_id, rng.randint(1, 30), rng.randint(1, 30), rng.randint(0, MAX_DRAFT_TOKENS))
        everyone.append(sequence)
        scheduler.add(sequence)
        for _ in range(rng.randint(0, 4)):
            drafts = {s.sequence_id: [7] * rng.randint(0, 6) for s in scheduler.sequences}
            run(scheduler, drafts, accepted=rng.randint(0, 4))
        if scheduler.sequences and rng.random() < 0.2:
            unwanted = rng.choice(scheduler.sequences)
            unwanted.finish_reason = FinishReason.CANCELLED
            scheduler.remove(unwanted)
    while scheduler.sequences:
        assert run(scheduler, accepted=rng.randint(0, 4)), "somebody can always run"
    assert scheduler.num_preemptions > 0
    for sequence in everyone:
        if sequence.finish_reason is FinishReason.LENGTH:
            assert sequence.num_output_tokens == sequence.stopping.max_tokens
        else:
            assert sequence.finish_reason is FinishReason.CANCELLED


def test_the_integrity_check_notices_who_holds_blocks_and_does_not_run(monkeypatch):
    scheduler = make_scheduler()
    sequence = make_sequence(1)
    scheduler.add(sequence)
    run(scheduler)
    monkeypatch.setattr(KvAllocator, "release", lambda self, sequence_id: None)
    scheduler.remove(sequence)
    with pytest.raises(AssertionError, match="who does not run holds no block"):
        scheduler.check_integrity()
