import random
from itertools import pairwise

import pytest

from tandem.engine.acceptance import LONGEST_RUN, Acceptance, Run, gains
from tandem.engine.draft_policy import Judged

EXPECTED = [0.6 + 0.03 * run for run in range(LONGEST_RUN + 1)]


def judged(start, num_drafts, num_right, num_written=None):
    return Judged(1, 0, start, num_drafts, num_right, num_right + 1 if num_written is None else num_written)


def mixed_text(seed, num_stretches=2000):
    """By position: drafts that would be right from there on. Stretches are easy or hard, as in real texts."""
    rng = random.Random(seed)
    chances = [chance for _ in range(num_stretches) for chance in [rng.choice((0.9, 0.35))] * rng.randrange(1, 30)]
    found, run = [], 0
    for chance in reversed(chances):
        run = run + 1 if rng.random() < chance else 0
        found.append(run)
    return found[::-1]


def rounds(text, num_drafts):
    """What rounds with so many drafts show of a text."""
    position = 0
    while position + num_drafts + 1 < len(text):
        yield judged(position, num_drafts, min(text[position], num_drafts))
        position += min(text[position], num_drafts) + 1


def tokens_per_round(text, num_drafts):
    found = list(rounds(text, num_drafts))
    return sum(one.num_written for one in found) / len(found)


def test_without_evidence_a_sequence_is_its_drafters_average():
    assert Acceptance(30).chances(EXPECTED, 4, 7) == pytest.approx(EXPECTED)


def test_a_draft_is_judged_only_where_all_before_it_were_right():
    acceptance = Acceptance(1e9)
    for one in (judged(0, 3, 0), judged(1, 3, 2), judged(4, 2, 2)):  # what came after the last one is not known
        acceptance.record(0, one, 1)
    assert acceptance.chances(EXPECTED, 0.001, 1)[:3] == pytest.approx([2 / 3, 1.0, 0.0], abs=0.01)
    assert acceptance.chances(EXPECTED, 1, 1)[0] == pytest.approx(2.6 / 4)
    assert acceptance.chances(EXPECTED, 1, 1)[3:] == pytest.approx(EXPECTED[3:])


def test_what_was_never_seen_is_expected_to_be_as_after_a_shorter_run():
    acceptance = Acceptance(1e9)
    for _ in range(1000):
        acceptance.record(0, judged(0, 2, 1), 1)
    assert acceptance.chances(None, 1, 1) == pytest.approx([1.0] + LONGEST_RUN * [0.0], abs=0.01)


def test_evidence_fades_in_rounds_towards_what_was_expected():
    acceptance = Acceptance(30)
    for round_number in range(200):
        acceptance.record(0, judged(round_number, 3, 0), round_number)
    soon, later, late = (acceptance.chances(EXPECTED, 4, 200 + rounds)[0] for rounds in (0, 60, 300))
    assert soon < 0.15 < later < 0.5 < late < 0.6
    acceptance.record(0, judged(500, 3, 3), 500)
    assert acceptance.chances(EXPECTED, 4, 500)[0] > 0.65, "the past weighs less than one round now"


def test_a_run_goes_on_from_round_to_round_until_a_draft_is_wrong():
    run = Run()
    assert [run.start(one) for one in (judged(0, 2, 2), judged(3, 4, 4), judged(8, 4, 1), judged(10, 1, 1))] == [
        0,
        2,
        6,
        0,
    ]
    assert run.length == 1


def test_what_is_not_known_ends_a_run():
    run = Run()
    run.start(judged(0, 2, 2))
    assert run.start(judged(9, 2, 2)) == 0, "somebody else wrote what is between"
    run.start(judged(12, 2, 2, num_written=7))
    assert run.length == 0, "another drafter's were verified, and went further"
    run.start(judged(19, 4, 1, num_written=1))
    assert run.length == 1, "no more was written than the one that was right"


@pytest.mark.parametrize("num_drafts", [1, 2, 4, 7])
def test_rounds_of_any_number_of_drafts_tell_what_those_of_another_would_give(num_drafts):
    text, run, acceptance = mixed_text(seed=num_drafts), Run(), Acceptance(1e9)
    for one in rounds(text, num_drafts):
        acceptance.record(run.start(one), one, 0)
    tokens = 1.0
    for other, gain in enumerate(gains(acceptance.chances(None, 1, 0), 0, 7), start=1):
        tokens += gain
        assert tokens == pytest.approx(tokens_per_round(text, other), rel=0.06)


def test_the_first_drafts_of_long_rounds_alone_would_not_have_told():
    text = mixed_text(seed=3)
    long = list(rounds(text, 7))
    naive = 1 + sum(min(one.num_right, 2) for one in long) / len(long)
    assert naive < 0.93 * tokens_per_round(text, 2)


def test_equal_chances_give_a_geometric_series():
    assert gains([0.5] * (LONGEST_RUN + 1), 0, 5) == pytest.approx([0.5**draft for draft in range(1, 6)])
    assert gains([0.0] * (LONGEST_RUN + 1), 0, 3) == [0.0, 0.0, 0.0]
    assert sum(gains([1.0] * (LONGEST_RUN + 1), 0, 7)) == pytest.approx(7, rel=0.05)


def test_in_a_long_run_only_what_is_left_of_it_counts():
    chances = [0.2] * LONGEST_RUN + [0.9]
    assert gains(chances, LONGEST_RUN, 3) == pytest.approx([0.9, 0.81, 0.729])
    assert gains(chances, LONGEST_RUN + 5, 3) == gains(chances, LONGEST_RUN, 3)
    assert sum(gains(chances, LONGEST_RUN - 1, 3)) < 0.5


@pytest.mark.parametrize("seed", range(20))
def test_a_draft_never_gives_more_than_the_one_before_it(seed):
    rng = random.Random(seed)
    found = gains([rng.random() for _ in range(LONGEST_RUN + 1)], 0, 7)
    assert len(found) == 7
    assert all(1 >= before >= gain >= 0 for before, gain in pairwise(found))
