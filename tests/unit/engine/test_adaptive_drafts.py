"""The policy in a made-up world: it finds what pays, gives up what does not, and notices when that changes."""

import pytest

from tandem.engine.adaptive_drafts import AdaptiveDrafts
from tandem.engine.draft_policy import Candidate, Drafting, DraftPlan, FixedDrafts, Judged, RoundReport, StepTaken
from tests.unit.engine.world import World


def dense(sequences, rows):
    """Weights are what takes time: rows are nearly free."""
    return 16 + 0.01 * rows


def experts(sequences, rows):
    """Every row loads experts of its own."""
    return 3 + 3 * rows


def mtp(drafter, sequences, drafts):
    return 0.1 + 0.2 * drafts


def calibrated(step, num_drafters=1, k=4):
    policy = AdaptiveDrafts(num_drafters, max_rows=512)
    for batch in (1, 4, 16):
        for count in (0, 1, k):
            rows = batch * (1 + count)
            policy.learn(RoundReport(step=StepTaken(batch, rows, step(batch, rows) / 1000, is_rehearsal=True)))
    return policy


class Always:
    """A fixed K, at most what is asked for."""

    def __init__(self, k):
        self.k = k

    def plan(self, candidates, max_drafts):
        return [DraftPlan(one.sequence_id, 0, self.k, self.k) for one in candidates if self.k]

    def learn(self, report):
        pass


def test_good_drafts_that_cost_little_are_all_verified():
    outcome = World(dense, mtp, lambda *_: 0.95, k=7).run(AdaptiveDrafts(1, 512), 200)
    assert outcome.mean_drafts > 6.5


def test_drafts_that_are_never_right_are_given_up_but_for_probes():
    outcome = World(dense, mtp, lambda *_: 0.0).run(AdaptiveDrafts(1, 512), 300)
    assert 0 < outcome.num_verified < 0.3 * 300 * 4
    assert outcome.rate > 0.97 * World(dense, mtp, lambda *_: 0.0).run(Always(0), 300).rate


def test_nothing_is_drafted_where_every_row_costs_as_much_as_a_token():
    outcome = World(experts, mtp, lambda *_: 0.4).run(calibrated(experts), 300)
    assert outcome.mean_drafts < 0.2
    many = World(lambda sequences, rows: 1.0 * rows, mtp, lambda *_: 0.6, num_sequences=32)
    assert many.run(calibrated(many.step), 100).mean_drafts < 0.1 * 32


def test_drafts_are_fewer_where_later_ones_do_not_pay():
    worth = World(lambda sequences, rows: 6 + 0.5 * rows, mtp, lambda *_: 0.5, k=7)
    assert 0.8 < worth.run(calibrated(worth.step, k=7), 300).mean_drafts < 3.5


@pytest.mark.parametrize("chance", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("num_sequences", [1, 4, 12])
@pytest.mark.parametrize("step", [dense, experts, lambda sequences, rows: 6 + 0.5 * rows])
def test_it_is_about_as_fast_as_the_best_fixed_number(step, num_sequences, chance):
    ratios = []
    for seed in range(4):

        def world(seed=seed):
            return World(step, mtp, lambda *_: chance, num_sequences, seed=seed)

        best = max(world().run(Always(k), 250).rate for k in range(5))
        ratios.append(world().run(calibrated(step), 250).rate / best)
    assert sum(ratios) / len(ratios) > 0.95


def test_each_sequence_of_a_batch_has_its_own_number():
    world = World(lambda sequences, rows: 4 + rows, mtp, lambda _, sequence: 0.95 if sequence else 0.05, 2)
    policy = calibrated(world.step)
    world.run(policy, 100)
    plans = policy.plan([Candidate(0, 4), Candidate(1, 4)], [4])
    counts = {plan.sequence_id: plan.num_verified for plan in plans}
    assert counts.get(1, 0) == 4 and counts.get(0, 0) <= 1


def test_a_text_that_becomes_easy_is_drafted_for_again():
    chance = 0.0
    world = World(dense, mtp, lambda *_: chance)
    policy = AdaptiveDrafts(1, 512)
    world.run(policy, 300)
    chance = 0.9
    world.run(policy, 200)
    assert world.run(policy, 50).mean_drafts > 3


def test_steps_that_become_dear_end_drafting_and_cheap_ones_bring_it_back():
    dear = False
    world = World(lambda *sizes: experts(*sizes) if dear else dense(*sizes), mtp, lambda *_: 0.6)
    policy = calibrated(dense)
    assert world.run(policy, 50).mean_drafts > 2
    dear = True
    world.run(policy, 1500)
    assert world.run(policy, 100).mean_drafts < 1.5
    dear = False
    world.run(policy, 1000)
    assert world.run(policy, 100).mean_drafts > 2


def test_each_sequence_uses_the_drafter_that_is_better_for_it():
    """Drafter 1 is right about sequence 1, which copies; drafter 0 about the other one."""
    world = World(dense, mtp, lambda drafter, sequence: 0.9 if drafter == sequence else 0.3, 2, num_drafters=2)
    policy = calibrated(dense, num_drafters=2)
    world.run(policy, 40)
    late = world.run(policy, 100)
    for sequence in (0, 1):
        assert late.verified_by[sequence, sequence] > 85
        assert late.verified_by.get((sequence, 1 - sequence), 0) < 15


def test_a_new_sequence_is_tried_with_every_drafter_at_no_cost_of_tokens():
    policy = calibrated(dense, num_drafters=2)
    world = World(dense, mtp, lambda drafter, _: 0.9 if drafter == 0 else 0.0, num_drafters=2)
    world.run(policy, 200)
    plans = policy.plan([Candidate(99, 4)], [4, 4])
    assert {plan.drafter: plan.num_verified for plan in plans} == {0: 4, 1: 0}


def test_a_drafter_that_is_away_is_not_asked_and_its_return_is_noticed():
    policy = AdaptiveDrafts(2, 512)
    assert policy.plan([Candidate(1, 4)], [0, 0]) == []
    assert {plan.drafter for plan in policy.plan([Candidate(1, 4)], [0, 4])} == {1}
    assert {plan.drafter for plan in policy.plan([Candidate(1, 4)], [4, 4])} == {0, 1}


def test_nobody_gets_more_than_is_of_use_or_than_the_drafter_makes():
    policy = AdaptiveDrafts(1, 512)
    for _ in range(300):
        plans = policy.plan([Candidate(1, 2), Candidate(2, 0), Candidate(3, 9)], [5])
        assert {plan.sequence_id for plan in plans} <= {1, 3}
        assert all(plan.num_drafts <= {1: 2, 3: 5}[plan.sequence_id] for plan in plans)
        judged = [Judged(plan.sequence_id, 0, 1, plan.num_drafts, plan.num_drafts, 9) for plan in plans]
        policy.learn(RoundReport(judged, [Drafting(0, 2, 5, 0.001, True)], StepTaken(3, 10, 0.01)))


def test_waiting_in_vain_makes_probes_rare():
    def probes(is_answer):
        policy, count = AdaptiveDrafts(1, 512), 0
        for turn in range(1000):
            plans = policy.plan([Candidate(1, 4)], [4])
            count += bool(plans)
            drafting = [Drafting(0, 1, 4, 0.2 if not is_answer else 0.001, is_answer)] if plans else []
            judged = [Judged(1, 0, turn, 4, 0, 1) for _ in plans]
            policy.learn(RoundReport(judged, drafting, StepTaken(1, 1 + 4 * bool(plans), 0.01)))
        return count

    assert probes(is_answer=False) < 0.5 * probes(is_answer=True)


def test_a_fixed_number_is_what_was_asked_for_from_the_first_drafter_that_is_there():
    candidates = [Candidate(1, 4), Candidate(2, 0), Candidate(3, 2)]
    assert FixedDrafts().plan(candidates, [0, 7, 7]) == [DraftPlan(1, 1, 4, 4), DraftPlan(3, 1, 2, 2)]
    assert FixedDrafts().plan(candidates, [0]) == []


@pytest.mark.parametrize(("others_right", "is_alike"), [(0.7, True), (0.0, False)])
def test_sequences_are_given_equal_numbers_unless_unlike_ones_promise_clearly_more(others_right, is_alike):
    policy = calibrated(lambda sequences, rows: 10 + 1.0 * rows)
    candidates = [Candidate(number, 4) for number in range(8)]
    rights = [0.85] * 4 + [others_right] * 4
    for turn in range(400):
        plans = policy.plan(candidates, [4])
        judged = []
        for plan in plans:
            # Deterministic chances: draft j of a turn is right for a share of the turns.
            right = rights[plan.sequence_id]
            draws = [(turn * 37 + plan.sequence_id * 11 + 53 * j) % 100 < 100 * right for j in range(plan.num_drafts)]
            num_right = next((j for j, is_right in enumerate(draws) if not is_right), len(draws))
            judged.append(Judged(plan.sequence_id, 0, turn, plan.num_drafts, num_right, num_right + 1))
        policy.learn(RoundReport(judged, [Drafting(0, 8, 4, 0.9e-3, True)] if plans else []))
    settled = [policy.plan(candidates, [4]) for _ in range(20)]
    counts = [[plan.num_verified for plan in plans] for plans in settled]
    alike = sum(len(set(numbers)) == 1 and len(numbers) == 8 for numbers in counts)
    assert (alike > 15) == is_alike
