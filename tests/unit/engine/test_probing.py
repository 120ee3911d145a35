"""When something else than the best is tried."""

from collections import Counter

import pytest

from tandem.engine.draft_allocation import Allocation
from tandem.engine.probing import SHARE, Purses, lost_seconds

CHEAP, DEAR = (0, 1), (0, 6)


def probes(num_rounds, prices, purses=None):
    purses = purses or Purses()
    taken = Counter()
    for _ in range(num_rounds):
        purses.save(0.01)
        taken[purses.take(prices)] += 1
    return taken


def test_a_dear_choice_holds_up_no_cheap_one():
    taken = probes(6000, {CHEAP: 0.0005, DEAR: 0.04})
    of_cheap = (1 / 2 + 1 / (1 + 0.0005 / 0.04)) / 2
    assert taken[CHEAP] == pytest.approx(6000 * SHARE * of_cheap * 0.01 / 0.0005, rel=0.1)
    assert taken[DEAR] == 1


def test_no_more_time_is_lost_than_is_meant():
    prices = {(0, count): 0.001 * count for count in range(1, 7)}
    taken = probes(50_000, prices)
    lost = sum(prices[choice] * number for choice, number in taken.items() if choice)
    assert 0.8 * SHARE < lost / (50_000 * 0.01) <= SHARE


def test_time_lost_in_vain_is_saved_first():
    purses = Purses()
    probes(100, {CHEAP: 0.0005}, purses)
    purses.charge(1.0)
    assert probes(1000, {CHEAP: 0.0005}, purses) == {None: 1000}


def test_a_round_at_the_best_rate_loses_nothing():
    best = Allocation([2], 2.0, 0.01)
    assert lost_seconds(best, Allocation([4], 4.0, 0.02)) == 0.0
    assert lost_seconds(best, Allocation([4], 2.0, 0.03)) == pytest.approx(0.02)
    assert lost_seconds(best, Allocation([1], 2.0, 0.005)) == 0.0
