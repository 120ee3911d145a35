import itertools
import random

import pytest

from tandem.engine.draft_allocation import Offer, allocate


def best_of_all(offers, step, drafting):
    """By trying every combination."""

    def rate(counts):
        tokens = len(offers)
        for offer, count in zip(offers, counts, strict=True):
            tokens += sum(offer.gains[:count])
        seconds = step(len(offers) + sum(counts))
        for drafter in {offer.drafter for offer in offers}:
            asked = [n for offer, n in zip(offers, counts, strict=True) if n and offer.drafter == drafter]
            seconds += drafting(drafter, len(asked), max(asked)) if asked else 0.0
        return tokens / seconds

    return max(map(rate, itertools.product(*(range(len(offer.gains) + 1) for offer in offers))))


@pytest.mark.parametrize("seed", range(30))
def test_it_is_close_to_the_best_of_all_combinations(seed):
    rng = random.Random(seed)
    offers = [Offer(rng.randrange(2), sorted((rng.random() for _ in range(4)), reverse=True)) for _ in range(3)]
    fixed, row, draft = rng.uniform(1, 10), rng.uniform(0, 2), rng.uniform(0, 1)

    def step(rows):
        return fixed + row * rows

    def drafting(drafter, count, most):
        return draft * most + 0.1 * count

    found = allocate(offers, 100, step, drafting)
    assert found.tokens_per_second == pytest.approx(best_of_all(offers, step, drafting), rel=0.03)
    assert found.tokens_per_second <= best_of_all(offers, step, drafting) + 1e-9


def test_a_step_that_costs_in_jumps_is_filled_up_to_the_next_one():
    found = allocate(
        [Offer(0, [0.5**j for j in range(1, 9)])], 100, lambda rows: 10.0 if rows <= 4 else 20.0, lambda *_: 0.0
    )
    assert found.num_drafts == [3]


def test_a_row_beyond_the_step_is_never_taken():
    found = allocate([Offer(0, [1.0] * 4), Offer(0, [1.0] * 4)], 5, lambda rows: 1.0, lambda *_: 0.0)
    assert sum(found.num_drafts) == 3


def test_nothing_is_drafted_where_nothing_may_be():
    found = allocate([Offer(0, []), Offer(0, [])], 9, lambda rows: 1.0 + rows, lambda *_: 0.0)
    assert (found.num_drafts, found.tokens, found.seconds) == ([0, 0], 2.0, 3.0)
