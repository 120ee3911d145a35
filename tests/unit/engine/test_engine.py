"""The engine over a tiny random pair: the same tokens whoever drafts, and nothing lost whatever happens."""

import random
import threading
import time

import pytest

from tandem.core.errors import EngineFault, KvCacheFull, QueueFull
from tandem.core.sampling_params import OutputParams, StoppingParams
from tandem.core.sequence import FinishReason
from tandem.engine import engine as engine_module
from tandem.telemetry import metrics as names
from tests.engines import lenient_judge, mtp_drafts, new_sequence, running
from tests.unit.engine.hostile import ScriptedDrafter, garbage, random_tokens

VOCABULARY = 64
NUM_PROMPTS = 12


def prompts(count=NUM_PROMPTS, seed=0, longest=90):
    rng = random.Random(seed)
    return [[rng.randrange(2, VOCABULARY) for _ in range(rng.randint(1, longest))] for _ in range(count)]


def sequences(k, temperature, **kwargs):
    return [
        new_sequence(i, prompt, max_tokens=24, k=k, seed=i * 17, temperature=temperature, **kwargs)
        for i, prompt in enumerate(prompts())
    ]


def sources(target, pair):
    return {
        "none": lambda inputs: [],
        "honest": mtp_drafts(target, pair[1]),
        "random": lambda inputs: ScriptedDrafter(random_tokens(VOCABULARY)),
        "garbage": lambda inputs: ScriptedDrafter(garbage(VOCABULARY)),
    }


def by_hand(target, sequence):
    """Greedy decoding with nothing but the network: the whole text again for every token."""
    from tests.unit.models.paged import PagedRunner

    token_ids = list(sequence.prompt_token_ids)
    for _ in range(sequence.stopping.max_tokens):
        hidden = PagedRunner(target).step({"s": token_ids})["s"]
        token_ids.append(int(target.compute_logits(hidden[-1:]).argmax()))
    return token_ids[sequence.num_prompt_tokens :]


@pytest.fixture(scope="module")
def plain(target):
    """What the target alone writes, one sequence at a time: text by (temperature, prompt)."""
    texts = {}
    with running(target, lambda inputs: [], prefix_cache=False) as under_test:
        for temperature in (0.0, 0.8):
            for sequence in sequences(0, temperature):
                under_test.outputs.pop(sequence.sequence_id, None)
                texts[temperature, sequence.sequence_id] = under_test.generate([sequence])[0]
    return texts


def test_plain_decoding_is_that_of_the_network(target, plain):
    for sequence in sequences(0, 0.0)[:4]:
        assert plain[0.0, sequence.sequence_id] == by_hand(target, sequence)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("k", [0, 1, 4, 7])
@pytest.mark.parametrize("source", ["none", "honest", "random", "garbage"])
def test_the_text_is_the_same_whoever_drafts(target, pair, plain, source, k, temperature):
    with running(target, sources(target, pair)[source]) as under_test:
        texts = under_test.generate(sequences(k, temperature))
    assert texts == [plain[temperature, i] for i in range(NUM_PROMPTS)]


def test_perfect_drafts_are_all_accepted_and_counted(target, plain):
    with running(target, lambda inputs: ScriptedDrafter(lambda slots, k: oracle(slots, k))) as under_test:

        def oracle(slots, k):
            return [text[known.num_output_tokens :][:k] for _ in slots]

        known = sequences(4, 0.0)[3]
        text = plain[0.0, 3]
        assert under_test.generate([known]) == [text]
    # One token from the prompt, then 23 in rounds of 5: the last round has 3, two of them drafted.
    assert known.stats.num_rounds == 5
    assert known.stats.num_draft_tokens == known.stats.num_accepted_tokens == 4 * 4 + 2
    assert known.stats.accepted_by_position == [5, 5, 4, 4]
    assert under_test.metrics.value(names.SPEC_ACCEPTED_TOKENS) == 18
    assert under_test.metrics.value(names.SPEC_FALLBACKS) == 0
    rounds = under_test.outputs[3]
    assert [(o.num_draft_tokens, o.num_accepted_tokens, len(o.token_ids)) for o in rounds] == [
        (None, 0, 1), (4, 4, 5), (4, 4, 5), (4, 4, 5), (4, 4, 5), (2, 2, 3)
    ]  # fmt: skip


def test_a_judge_that_accepts_one_wrong_token_is_noticed(target, plain):
    with running(target, lambda inputs: ScriptedDrafter(random_tokens(VOCABULARY)), judge=lenient_judge) as under_test:
        # What is emitted are the target's own tokens even then, so the fault shows in what follows them.
        texts = under_test.generate(sequences(4, 0.0))
    assert texts != [plain[0.0, i] for i in range(NUM_PROMPTS)]


@pytest.mark.parametrize("source", ["none", "honest"])
def test_preemption_changes_no_text(target, pair, plain, source):
    with running(target, sources(target, pair)[source], kv_tokens=208) as under_test:
        texts = under_test.generate(sequences(4, 0.8))
    assert under_test.metrics.value(names.PREEMPTIONS) > 0
    assert texts == [plain[0.8, i] for i in range(NUM_PROMPTS)]


def test_penalties_bias_and_min_tokens_work_with_speculation(target, pair):
    def wanted(k):
        return sequences(
            k,
            0.8,
            repetition_penalty=1.3,
            frequency_penalty=0.5,
            presence_penalty=-0.4,
            logit_bias=((5, 2.0), (9, -4.0)),
            stopping=StoppingParams(24, min_tokens=6, stop_token_ids=frozenset(range(2, 30))),
        )

    with running(target, lambda inputs: []) as under_test:
        plain = under_test.generate(wanted(0))
    assert all(len(text) > 6 for text in plain)
    assert any(len(text) < 24 for text in plain)
    for source in ("honest", "random"):
        with running(target, sources(target, pair)[source]) as under_test:
            assert under_test.generate(wanted(4)) == plain


def test_logprobs_are_those_of_the_target_with_and_without_drafts(target, pair):
    def run(source, k):
        asked = sequences(k, 0.8, output=OutputParams(logprobs=True, top_logprobs=3, prompt_logprobs=True))
        with running(target, sources(target, pair)[source]) as under_test:
            under_test.generate(asked)
        return [
            (
                [about for output in under_test.outputs[s.sequence_id] for about in output.logprobs],
                under_test.outputs[s.sequence_id][0].prompt_logprobs,
            )
            for s in asked
        ]

    plain, speculated = run("none", 0), run("honest", 4)
    for sequence, (ours, of_prompt), (theirs, of_their_prompt) in zip(
        sequences(0, 0.0), plain, speculated, strict=True
    ):
        assert len(ours) == 24
        assert len(of_prompt) == sequence.num_prompt_tokens - 1
        assert [[t for t, _ in about.top] for about in ours] == [[t for t, _ in about.top] for about in theirs]
        assert [a.chosen for a in ours] == pytest.approx([a.chosen for a in theirs], abs=1e-4)
        assert [a.chosen for a in of_prompt] == pytest.approx([a.chosen for a in of_their_prompt], abs=1e-4)
        assert all(about.chosen <= about.top[0][1] + 1e-6 for about in ours)


def test_a_stop_token_ends_a_text_inside_a_round(target, pair, plain):
    stop = plain[0.0, 3][10]
    expected = plain[0.0, 3][: plain[0.0, 3].index(stop) + 1]
    sequence = new_sequence(
        3, prompts()[3], k=7, stopping=StoppingParams(24, stop_token_ids=frozenset([stop])), seed=51
    )
    with running(target, mtp_drafts(target, pair[1])) as under_test:
        assert under_test.generate([sequence]) == [expected]
        assert under_test.end(sequence).reason is FinishReason.STOP
        assert under_test.end(sequence).stop_token_id == stop


def slow_drafter(seconds):
    def answer(slots, k):
        time.sleep(seconds)
        return [[] for _ in slots]

    return lambda inputs: ScriptedDrafter(answer)


def test_a_cancelled_sequence_ends_within_a_round_and_the_others_go_on(target, plain):
    unwanted = new_sequence(99, [5, 6, 7], max_tokens=400)
    others = sequences(4, 0.0)[:3]
    with running(target, slow_drafter(0.002)) as under_test:
        under_test.engine.submit(unwanted)
        while not under_test.outputs.get(99):
            time.sleep(0.001)
        under_test.engine.cancel(99)
        under_test.wait([unwanted])
        assert under_test.end(unwanted).reason is FinishReason.CANCELLED
        assert under_test.generate(others) == [plain[0.0, s.sequence_id] for s in others]
    assert len(under_test.token_ids(unwanted)) < 400


def test_a_deadline_ends_running_and_waiting_sequences(target):
    now = time.monotonic()
    running_one = new_sequence(1, [5, 6, 7], max_tokens=400, deadline=now + 0.1)
    waiting_one = new_sequence(2, [5, 6, 7], max_tokens=400, deadline=now + 0.05)
    with running(target, slow_drafter(0.005), max_sequences=1) as under_test:
        under_test.generate([running_one, waiting_one])
    assert under_test.end(running_one).reason is FinishReason.DEADLINE
    assert under_test.end(waiting_one).reason is FinishReason.DEADLINE
    assert under_test.token_ids(running_one)
    assert not under_test.token_ids(waiting_one)


def test_the_queue_is_bounded_and_opens_again(target):
    entered, go_on = threading.Event(), threading.Event()

    def answer(slots, k):
        entered.set()
        assert go_on.wait(10)
        return [[] for _ in slots]

    with running(target, lambda inputs: ScriptedDrafter(answer), max_sequences=1, max_queue=2) as under_test:
        taken = [new_sequence(i, [5, 6], max_tokens=4) for i in range(3)]
        for sequence in taken:
            under_test.engine.submit(sequence)
        assert entered.wait(10)
        with pytest.raises(QueueFull):
            under_test.engine.submit(new_sequence(9, [5, 6]))
        go_on.set()
        under_test.wait(taken)
        assert under_test.generate([new_sequence(9, [5, 6], max_tokens=4)])


def test_what_the_whole_cache_cannot_hold_is_refused(target):
    with running(target, lambda inputs: [], kv_tokens=64) as under_test:
        with pytest.raises(KvCacheFull):
            under_test.engine.submit(new_sequence(1, [5] * 40, max_tokens=26))
        assert len(under_test.generate([new_sequence(2, [5] * 40, max_tokens=25)])[0]) == 25


def failing_drafter(num_good, num_bad):
    """Raises in some rounds, as no source should."""
    count = iter(range(10**9))

    def answer(slots, k):
        if num_good <= next(count) < num_good + num_bad:
            raise RuntimeError("boom")
        return [[] for _ in slots]

    return lambda inputs: ScriptedDrafter(answer)


def test_a_fault_ends_what_runs_and_the_engine_serves_on(target, plain):
    victims = sequences(4, 0.0)[:2]
    with running(target, failing_drafter(2, 1)) as under_test:
        under_test.generate(victims)
        assert [under_test.end(v).reason for v in victims] == [FinishReason.FAULT] * 2
        later = sequences(4, 0.0)[2]
        assert under_test.generate([later]) == [plain[0.0, 2]]


def test_an_engine_that_only_fails_gives_up(target, monkeypatch):
    monkeypatch.setattr(engine_module, "MAX_FAULTS_IN_A_ROW", 2)
    from tests.engines import LIMITS, EngineUnderTest

    under_test = EngineUnderTest(target, lambda inputs: [], LIMITS)
    monkeypatch.setattr(under_test.engine._rounds.runner, "run", lambda step: 1 / 0)
    under_test.engine.start()
    sequences_ = [new_sequence(i, [5, 6]) for i in range(2)]
    for sequence in sequences_:
        under_test.engine.submit(sequence)
        under_test.wait([sequence])
        assert under_test.end(sequence).reason is FinishReason.FAULT
    assert isinstance(under_test.engine.wait_until_dead(), ZeroDivisionError)
    with pytest.raises(EngineFault):
        under_test.engine.submit(new_sequence(3, [5, 6]))


def test_stopping_ends_what_runs_as_cancelled(target):
    sequence = new_sequence(1, [5, 6, 7], max_tokens=400)
    with running(target, slow_drafter(0.005)) as under_test:
        under_test.engine.submit(sequence)
        while not under_test.outputs.get(1):
            time.sleep(0.001)
    assert under_test.end(sequence).reason is FinishReason.CANCELLED
    under_test.engine._rounds.scheduler.check_integrity()
    assert under_test.engine._rounds.kv.usage == 0.0
