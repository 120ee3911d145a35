"""What a drafter is sent: every token once, in order, whatever sequence is in a slot."""

import random

from tandem.drafter.lookup_table import LookupTable
from tandem.drafter.v1 import drafter_service_pb2 as pb
from tandem.engine.draft_source import Wanted
from tandem.verifier.drafter_link import MAX_MESSAGE_BYTES
from tandem.verifier.token_carrier import MAX_TOKENS_A_REQUEST, TokenCarrier

GENERATION = 7


def carrier():
    return TokenCarrier(num_slots=8, vocabulary_size=64, max_draft_tokens=4)


def ask(carrier, *wanted, generation=GENERATION):
    """(slot, sequence, tokens) of each that drafts are wanted for."""
    return carrier.request(generation, 1, [Wanted(slot, ids, 4, sequence) for slot, sequence, ids in wanted], 4)


def sent(request):
    return [(new.slot, new.sequence, new.start, list(new.token_ids)) for new in request.tokens]


def test_an_offer_names_sizes_and_no_memory():
    request = carrier().begin(GENERATION)
    assert request.generation == GENERATION and not request.HasField("shared_memory") and not request.layout_version
    assert (request.token_stream.num_slots, request.token_stream.vocabulary_size) == (8, 64)


def test_only_what_is_new_is_sent():
    tokens, text = carrier(), [1, 2, 3]
    request = ask(tokens, (0, 10, text))
    assert sent(request) == [(0, 10, 0, [1, 2, 3])] and list(request.slots) == [0] and request.num_tokens == 4
    text += [4, 5]
    assert sent(ask(tokens, (0, 10, text))) == [(0, 10, 3, [4, 5])]
    request = ask(tokens, (0, 10, text))
    assert sent(request) == [] and list(request.slots) == [0]


def test_another_sequence_or_another_slot_begins_anew():
    tokens = carrier()
    ask(tokens, (0, 10, [1, 2]))
    assert sent(ask(tokens, (0, 11, [1, 2, 3]))) == [(0, 11, 0, [1, 2, 3])]
    assert sent(ask(tokens, (1, 10, [1, 2, 3]))) == [(1, 10, 0, [1, 2, 3])], "after a preemption"
    assert sent(ask(tokens, (0, 10, [1, 2, 3]))) == [(0, 10, 0, [1, 2, 3])], "and back"


def test_another_attachment_knows_nothing():
    tokens = carrier()
    ask(tokens, (0, 10, [1, 2]))
    assert sent(ask(tokens, (0, 10, [1, 2]), generation=8)) == [(0, 10, 0, [1, 2])]


def test_a_long_prompt_comes_in_pieces_and_keeps_nobody_waiting():
    tokens, long, short = carrier(), list(range(2 * MAX_TOKENS_A_REQUEST)), [1, 2, 3]
    sizes, ready = [], []
    for _ in range(4):
        request = ask(tokens, (5, 10, long), (2, 11, short))
        sizes.append({new.slot: len(new.token_ids) for new in request.tokens})
        ready.append(set(request.slots))
        short.append(4)
    assert sizes == [{2: 3, 5: MAX_TOKENS_A_REQUEST - 3}, {2: 1, 5: MAX_TOKENS_A_REQUEST - 1}, {2: 1, 5: 4}, {2: 1}]
    assert ready == [{2}, {2}, {2, 5}, {2, 5}]


def test_the_longest_request_is_below_the_bound():
    wanted = [Wanted(slot, [2**31 - 1] * 64, 64, 2**63) for slot in range(4096)]
    request = TokenCarrier(4096, 2**31 - 1, 64).request(2**63, 2**63, wanted, 64)
    assert sum(len(new.token_ids) for new in request.tokens) == MAX_TOKENS_A_REQUEST
    request.slots.extend(range(4096 - len(request.slots)))
    assert request.ByteSize() < MAX_MESSAGE_BYTES


def test_drafts_come_back_in_the_order_wanted():
    tokens = carrier()
    request = ask(tokens, (5, 10, [1, 2, 3]), (2, 11, [1]), (0, 12, list(range(2 * MAX_TOKENS_A_REQUEST))))
    assert list(request.slots) == [2, 5]
    response = pb.DraftResponse(num_tokens=[1, 3], token_ids=[7, -1, 2**31 - 1, 0])
    assert tokens.read([5, 2, 0], request, response) == [(-1, 2**31 - 1, 0), (7,), ()]


def test_counts_that_do_not_fit_the_tokens_are_wrong():
    tokens = carrier()
    request = ask(tokens, (5, 10, [1, 2, 3]), (2, 11, [1]))
    for counts, token_ids in [([1, 1], [7]), ([1, 1], [7, 7, 7]), ([0, 0], [7]), ([4, 4], [])]:
        assert tokens.read([5, 2], request, pb.DraftResponse(num_tokens=counts, token_ids=token_ids)) is None


def test_sent_and_known_agree_whatever_happens_to_sequences():
    """Sequences grow, end, are preempted and move; at each round the drafter must know all of those asked for."""
    rng, tokens, table = random.Random(0), carrier(), LookupTable(10**9)
    texts, slots, next_id = {}, {}, 1
    for _ in range(2000):
        for slot in range(8):
            if slot not in slots and rng.random() < 0.3:
                waiting = [name for name in texts if name not in slots.values()]
                if waiting and rng.random() < 0.7:
                    slots[slot] = rng.choice(waiting)  # preempted before
                else:
                    slots[slot], next_id = next_id, next_id + 1
                    texts[slots[slot]] = [rng.randrange(3) for _ in range(rng.randint(1, 20))]
            elif slot in slots and rng.random() < 0.1:
                name = slots.pop(slot)
                if rng.random() < 0.5:
                    del texts[name]
        for name in slots.values():
            texts[name].extend(rng.randrange(3) for _ in range(rng.randint(1, 5)))
        drafted = [slot for slot in slots if rng.random() < 0.7]
        request = ask(tokens, *((slot, slots[slot], texts[slots[slot]]) for slot in drafted))
        for new in request.tokens:
            table.extend(new.slot, new.sequence, new.start, new.token_ids)
        for slot in request.slots:
            fresh = LookupTable(10**9)
            fresh.extend(0, 0, 0, texts[slots[slot]])
            assert table.draft(slot, 4) == fresh.draft(0, 4)
        assert sorted(request.slots) == sorted(drafted)
