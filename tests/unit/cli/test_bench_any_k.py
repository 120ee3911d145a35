"""Fixed and adaptive K side by side in the verifier of the benchmark."""

from tandem.cli.bench.any_k import ADAPTIVE, MAX_DRAFTS, AnyK
from tandem.engine.draft_policy import Candidate, Drafting, DraftPlan, Judged, RoundReport, StepTaken


def run(policy, asked, num_rounds=1, num_right=0):
    """Rounds of one sequence that asks for so many drafts; what was planned in the last."""
    for _ in range(num_rounds):
        plans = policy.plan([Candidate(asked, asked)], [ADAPTIVE])
        count = plans[0].num_verified if plans else 0
        judged = [Judged(asked, 0, 1, count, min(num_right, count), min(num_right, count) + 1)] if plans else []
        drafting = [Drafting(0, 1, count, 0.001 * count, True)] if plans else []
        policy.learn(RoundReport(judged, drafting, StepTaken(1, 1 + count, 0.01)))
    return plans


def test_who_asks_for_a_number_gets_it_however_little_it_pays():
    policy = AnyK(1, 512)
    for count in (1, 2, 4, MAX_DRAFTS):
        assert run(policy, count, 50) == [DraftPlan(count, 0, count, count)]
    assert run(policy, 0) == []


def test_who_asks_for_more_gets_what_pays_up_to_the_largest_of_those_numbers():
    assert run(AnyK(1, 512), ADAPTIVE, 50, MAX_DRAFTS)[0].num_verified == MAX_DRAFTS
    policy = AnyK(1, 512)
    assert sum(bool(run(policy, ADAPTIVE)) for _ in range(100)) < 50


def test_it_stays_adaptive_when_few_tokens_are_left():
    policy = AnyK(1, 512)
    run(policy, ADAPTIVE, 100)
    counts = [policy.plan([Candidate(ADAPTIVE, 3)], [ADAPTIVE]) for _ in range(20)]
    assert counts.count([]) > 10, "drafts of this text were never right"


def test_adaptive_k_learns_from_its_own_rounds_alone():
    """Fixed rounds, which try everything, would spare it the search."""
    policy = AnyK(1, 512)
    run(policy, MAX_DRAFTS, 100, num_right=0)
    assert run(policy, ADAPTIVE)[0].num_verified == run(AnyK(1, 512), ADAPTIVE)[0].num_verified > 0


def test_the_last_round_of_a_text_is_reported_to_who_planned_it():
    """The engine plans for nobody first, and then tells what came of the round."""
    policy = AnyK(1, 512)
    report = RoundReport([Judged(ADAPTIVE, 0, 1, 6, 0, 1)], [Drafting(0, 1, 6, 0.1, True)], StepTaken(1, 7, 0.01))
    for _ in range(40):
        policy.plan([Candidate(ADAPTIVE, ADAPTIVE)], [ADAPTIVE])
        policy.plan([], [ADAPTIVE])
        policy.learn(report)
    assert policy.plan([Candidate(ADAPTIVE, ADAPTIVE)], [ADAPTIVE]) == [], "drafts are dear, and never right"
