"""The engine with several drafters and a policy that chooses among them: same tokens, drafts where they pay."""

import random

import pytest

from tandem.core.sequence import FinishReason
from tandem.engine.draft_policy import DraftPlan, StepTaken
from tandem.telemetry import metrics as names
from tests.engines import EngineUnderTest, mtp_drafts, new_sequence, running
from tests.unit.engine.hostile import ScriptedDrafter, garbage, random_tokens

VOCABULARY = 64
NUM_PROMPTS = 8
MAX_TOKENS = 40


def sequences(temperature=0.0, k=7, count=NUM_PROMPTS, max_tokens=MAX_TOKENS):
    rng = random.Random(0)
    prompts = [[rng.randrange(2, VOCABULARY) for _ in range(rng.randint(1, 90))] for _ in range(count)]
    return [
        new_sequence(i, prompt, max_tokens=max_tokens, k=k, seed=i * 17, temperature=temperature)
        for i, prompt in enumerate(prompts)
    ]


class StrictDrafter(ScriptedDrafter):
    """Is asked and answers in turn, or the engine is at fault; `is_there` can be changed."""

    def __init__(self, answer, is_there=True):
        super().__init__(answer)
        self.is_there, self.is_asked = is_there, False

    def begin(self, wanted):
        assert wanted and not self.is_asked
        self.is_asked = self.is_there and super().begin(wanted)
        return self.is_asked

    def collect(self):
        assert self.is_asked
        self.is_asked = False
        return super().collect()


class Scripted:
    """A policy that plans what it is told to."""

    def __init__(self, plan):
        self.plan = plan
        self.reports = []

    def learn(self, report):
        self.reports.append(report)


def never(slots, k):
    raise AssertionError("nobody asks")


@pytest.fixture(scope="module")
def plain(target):
    with running(target, lambda inputs: []) as under_test:
        return {t: under_test.generate(sequences(t)) for t in (0.0, 0.8) if not under_test.outputs.clear()}


def sources(target, pair):
    return {
        "nobody": lambda inputs: [],
        "honest": mtp_drafts(target, pair[1]),
        "random": lambda inputs: ScriptedDrafter(random_tokens(VOCABULARY)),
        "garbage and honest": lambda inputs: [
            StrictDrafter(garbage(VOCABULARY)),
            mtp_drafts(target, pair[1])(inputs),
        ],
    }


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("source", ["nobody", "honest", "random", "garbage and honest"])
def test_the_text_is_the_same_with_adaptive_k(target, pair, plain, source, temperature):
    with running(target, sources(target, pair)[source], adaptive_k=True) as under_test:
        assert under_test.generate(sequences(temperature)) == plain[temperature]


def test_a_hostile_drafter_is_hardly_listened_to_and_one_that_recovers_is_used_again(target):
    is_hostile, wrong = True, random_tokens(VOCABULARY)
    sequence = new_sequence(0, [5, 6, 7], max_tokens=450, k=4)

    def answer(slots, k):
        return wrong(slots, k) if is_hostile else [text[sequence.num_output_tokens :][:k]]

    with running(target, lambda inputs: ScriptedDrafter(answer), adaptive_k=True) as under_test:
        text = under_test.generate([sequence])[0]
        first = sequence.stats
        assert first.num_draft_tokens < 0.5 * 4 * first.num_rounds
        is_hostile = False
        for number in range(1, 7):
            sequence = new_sequence(number, [5, 6, 7], max_tokens=450, k=4)
            assert under_test.generate([sequence]) == [text]
        assert sequence.stats.num_accepted_tokens > 2 * sequence.stats.num_rounds


def test_who_refuses_is_replaced_by_another_drafter(target, plain):
    for place in (0, 1):
        drafters = [StrictDrafter(never, is_there=False), StrictDrafter(never, is_there=False)]
        drafters[place] = StrictDrafter(random_tokens(VOCABULARY))
        with running(target, lambda inputs, drafters=drafters: drafters) as under_test:
            rounds = under_test.engine._rounds.speculation
            rounds.policy = Scripted(lambda ones, _: [DraftPlan(one.sequence_id, 0, 2, 2) for one in ones])
            assert under_test.generate(sequences()) == plain[0.0]
        assert drafters[place].num_rounds > 5
        assert under_test.metrics.value(names.SPEC_DRAFT_TOKENS) > 0


def test_two_drafters_draft_for_disjoint_sequences_in_one_round_and_only_what_is_planned_is_verified(target, plain):
    drafters = [StrictDrafter(lambda slots, k: [[3] * k for _ in slots]) for _ in range(2)]

    def plan(candidates, max_drafts):
        assert max_drafts == [7, 7]
        return [
            DraftPlan(one.sequence_id, one.sequence_id % 2, min(3, one.max_drafts), min(1, one.max_drafts))
            for one in candidates
            if one.max_drafts
        ]

    with running(target, lambda inputs: drafters) as under_test:
        under_test.engine._rounds.speculation.policy = Scripted(plan)
        asked = sequences()
        assert under_test.generate(asked) == plain[0.0]
    assert all(drafter.num_rounds > 20 for drafter in drafters)
    rounds = [output for of_one in under_test.outputs.values() for output in of_one]
    assert {output.num_draft_tokens for output in rounds} <= {None, 0, 1}


def test_drafts_that_are_not_verified_are_judged_by_the_text(target, plain):
    known = sequences()[3]
    text = plain[0.0][3]

    def right_once(slots, k):
        here = text[known.num_output_tokens :]
        return [[here[0], (here[0] + 1) % VOCABULARY, 0][:k]]

    policy = Scripted(lambda ones, _: [DraftPlan(one.sequence_id, 0, 3, 0) for one in ones if one.max_drafts > 3])
    with running(target, lambda inputs: ScriptedDrafter(right_once)) as under_test:
        under_test.engine._rounds.speculation.policy = policy
        assert under_test.generate([known]) == [text]
    assert known.stats.num_draft_tokens == 0
    judged = [judged for report in policy.reports for judged in report.judged]
    assert len(judged) > 20
    # The target wrote one token a round: the first draft was right, nothing is known of the others.
    assert {(one.num_right, one.num_written, one.has_failed) for one in judged} == {(1, 1, False)}
    starts = [one.start for one in judged]
    assert starts == list(range(starts[0], starts[0] + len(starts)))


class Recorded(StrictDrafter):
    """Notes when it is asked and answers, among what the policy does."""

    def __init__(self, events):
        super().__init__(random_tokens(VOCABULARY))
        self.events = events

    def begin(self, wanted):
        self.events.append("begin")
        return super().begin(wanted)

    def collect(self):
        self.events.append("collect")
        return super().collect()


def test_the_policy_thinks_while_the_drafter_is_at_work(target, plain):
    events = []

    class Thinking(Scripted):
        def learn(self, report):
            events.append("learn")

    def plan(candidates, max_drafts):
        events.append("plan")
        return [DraftPlan(one.sequence_id, 0, 2, 2) for one in candidates if one.max_drafts > 1]

    asked = sequences(count=1)
    with running(target, lambda inputs: [Recorded(events)]) as under_test:
        under_test.engine._rounds.speculation.policy = Thinking(plan)
        assert under_test.generate(asked) == plain[0.0][:1]
    decoding = events[events.index("begin") :]
    assert decoding[:12] == ["begin", "learn", "plan", "collect"] * 3
    assert decoding.count("begin") > 10


def test_an_early_plan_is_dropped_when_a_sequence_comes_or_has_less_use_for_drafts(target, plain):
    def plan(candidates, max_drafts):
        return [DraftPlan(one.sequence_id, 0, one.max_drafts, one.max_drafts) for one in candidates if one.max_drafts]

    class Noted(StrictDrafter):
        def begin(self, wanted):
            rounds.append({one.sequence_id: one.num_tokens for one in wanted})
            useful.append({one.sequence_id: min(7, one.num_tokens_left - 1) for one in asked})
            return super().begin(wanted)

    asked, rounds, useful = sequences(count=3), [], []
    with running(target, lambda inputs: [Noted(lambda slots, k: [[0] * k for _ in slots])]) as under_test:
        under_test.engine._rounds.speculation.policy = Scripted(plan)
        assert under_test.generate(asked) == plain[0.0][:3]
    assert {len(of_round) for of_round in rounds} == {1, 2, 3}
    for of_round, most in zip(rounds, useful, strict=True):
        assert of_round == {sequence_id: most[sequence_id] for sequence_id in of_round}


def test_only_steps_without_prompts_tell_what_a_step_takes(target):
    policy = Scripted(lambda ones, _: [])
    with running(target, lambda inputs: ScriptedDrafter(never)) as under_test:
        under_test.engine._rounds.speculation.policy = policy
        under_test.generate([new_sequence(0, [5] * 100, max_tokens=4)])
    steps = [report.step for report in policy.reports]
    assert steps[:2] == [None, None]  # 64 rows, then 36
    assert [(step.num_sequences, step.num_rows) for step in steps[2:]] == [(1, 1)] * 3


def test_a_round_that_fails_leaves_no_drafter_with_an_unread_answer(target, plain):
    """The first of two raises while the second one's answer is outstanding; `StrictDrafter` notices what is left."""
    count = iter(range(10**9))

    def boom(slots, k):
        if next(count) == 3:
            raise RuntimeError("boom")
        return [[] for _ in slots]

    drafters = [StrictDrafter(boom), StrictDrafter(random_tokens(VOCABULARY))]
    with running(target, lambda inputs: drafters) as under_test:
        under_test.engine._rounds.speculation.policy = Scripted(
            lambda ones, _: [DraftPlan(one.sequence_id, place, 2, 2 * place) for one in ones for place in (0, 1)]
        )
        victims = sequences(count=2)
        under_test.generate(victims)
        assert {under_test.end(victim).reason for victim in victims} == {FinishReason.FAULT}
        assert under_test.generate(sequences()[2:]) == plain[0.0][2:]


def test_calibration_measures_batches_and_leaves_nothing_behind(target, plain):
    under_test = EngineUnderTest(target, lambda inputs: ScriptedDrafter(random_tokens(VOCABULARY)), adaptive_k=True)
    rounds = under_test.engine._rounds
    policy = rounds.speculation.policy = Scripted(lambda ones, _: [])
    under_test.engine.calibrate()
    sizes = {(report.step.num_sequences, report.step.num_rows) for report in policy.reports}
    assert {(1, 1), (1, 2), (1, 8), (4, 4), (4, 32)} <= sizes
    assert all(isinstance(report.step, StepTaken) and report.step.seconds > 0 for report in policy.reports)
    assert not rounds.scheduler.sequences and rounds.kv.usage == 0.0
    rounds.scheduler.check_integrity()
    assert {metric for metric, _, _ in under_test.metrics.snapshot()} == {
        names.KV_BLOCKS
    }  # which are none of its doing
    under_test.engine.start()
    assert under_test.generate(sequences()) == plain[0.0]
    under_test.engine.stop()
