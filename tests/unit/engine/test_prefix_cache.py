"""The prefix cache over a tiny random pair (window of 8, blocks of 16): it saves rows, and changes no token."""

import random

import pytest

from tandem.core.sampling_params import OutputParams
from tandem.telemetry import metrics as names
from tests.engines import LIMITS, mtp_drafts, new_sequence, running

VOCABULARY = 64
BLOCK_SIZE = LIMITS.block_size
MAX_TOKENS = 24


def random_ids(rng, count):
    return [rng.randrange(2, VOCABULARY) for _ in range(count)]


def prompts():
    """Alone and in families: one beginning, many ends; lengths at the borders of blocks and within."""
    rng = random.Random(1)
    family = random_ids(rng, 70)
    return [
        *(random_ids(rng, count) for count in (1, 15, 16, 17, 32, 33, 49, 90)),
        *(family[:cut] + random_ids(rng, 9) for cut in (10, 16, 40, 64, 70)),
        family,
    ]


def sequences(k=4, temperature=0.0, first_id=0, **kwargs):
    return [
        new_sequence(first_id + i, prompt, max_tokens=MAX_TOKENS, k=k, seed=i * 17, temperature=temperature, **kwargs)
        for i, prompt in enumerate(prompts())
    ]


@pytest.fixture(scope="module")
def cold(target):
    """What the target alone writes without a cache, one sequence at a time; by temperature."""
    texts = {}
    with running(target, lambda inputs: [], prefix_cache=False) as under_test:
        for temperature in (0.0, 0.8):
            asked = sequences(0, temperature, 100 * int(temperature > 0))
            texts[temperature] = [under_test.generate([sequence])[0] for sequence in asked]
        assert under_test.metrics.value(names.CACHED_TOKENS) == 0
    return texts


def most_cached(prompt):
    """All full blocks, but for the one that has the last token."""
    return (len(prompt) - 1) // BLOCK_SIZE * BLOCK_SIZE


@pytest.mark.parametrize(("k", "temperature"), [(0, 0.8), (4, 0.0)])
def test_cold_and_warm_texts_are_those_without_a_cache(target, pair, cold, k, temperature):
    with running(target, mtp_drafts(target, pair[1])) as under_test:
        first, second = sequences(k, temperature), sequences(k, temperature, first_id=100)
        assert [under_test.generate([sequence])[0] for sequence in first] == cold[temperature]
        assert [under_test.generate([sequence])[0] for sequence in second] == cold[temperature]
    assert [s.num_cached_tokens for s in second] == [most_cached(prompt) for prompt in prompts()]
    assert under_test.metrics.value(names.CACHED_TOKENS) == sum(s.num_cached_tokens for s in [*first, *second])


def test_the_drafter_reads_shared_blocks_as_its_own(target, pair):
    """One wrong entry in the block tables that it reads, and its drafts are others, and fewer are accepted."""
    with running(target, mtp_drafts(target, pair[1])) as under_test:
        first, second = sequences(), sequences(first_id=100)
        for sequence in [*first, *second]:
            under_test.generate([sequence])
    assert sum(s.num_cached_tokens for s in second) > sum(s.num_cached_tokens for s in first)
    assert [s.stats for s in second] == [s.stats for s in first]
    assert sum(s.stats.num_accepted_tokens for s in second) > 0


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_all_at_once(target, pair, cold, temperature):
    with running(target, mtp_drafts(target, pair[1]), max_sequences=6) as under_test:
        asked = [*sequences(4, temperature), *sequences(4, temperature, first_id=100)]
        assert under_test.generate(asked) == cold[temperature] * 2
    assert under_test.metrics.value(names.CACHED_TOKENS) > 0


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_tiny_pool_evicts_and_preempts_and_changes_nothing(target, pair, cold, temperature):
    with running(target, mtp_drafts(target, pair[1]), kv_tokens=208) as under_test:
        for first_id in (0, 100, 200):
            assert under_test.generate(sequences(4, temperature, first_id)) == cold[temperature]
    metrics = under_test.metrics
    for metric in (names.CACHED_TOKENS, names.KV_EVICTIONS, names.PREEMPTIONS):
        assert metrics.value(metric) > 0


def test_one_prefix_for_many_at_a_time(target, cold):
    prompt, text = prompts()[7], cold[0.0][7]
    with running(target, lambda inputs: [], kv_tokens=320) as under_test:
        under_test.generate([new_sequence(0, prompt, max_tokens=1)])
        # They share five of the 20 blocks, and have three each of their own; without sharing, two would fit at a time.
        many = [new_sequence(i, prompt, max_tokens=MAX_TOKENS, k=0) for i in range(1, 6)]
        assert under_test.generate(many) == [text] * 5
    assert [sequence.num_cached_tokens for sequence in many] == [80] * 5
    assert under_test.metrics.value(names.PREEMPTIONS) == 0


def test_a_conversation_goes_on_from_its_last_answer(target, pair):
    rng = random.Random(2)
    turns = [random_ids(rng, 30) for _ in range(3)]

    def converse(drafts_of, **limits):
        text, cached = [], []
        with running(target, drafts_of, **limits) as under_test:
            for number, turn in enumerate(turns):
                sequence = new_sequence(number, text + turn, max_tokens=MAX_TOKENS)
                text = [*sequence.prompt_token_ids, *under_test.generate([sequence])[0]]
                cached.append(sequence.num_cached_tokens)
        return text, cached

    alone, _ = converse(lambda inputs: [], prefix_cache=False)
    text, cached = converse(mtp_drafts(target, pair[1]))
    assert text == alone
    assert cached == [0, 48, 96]  # of 53 and 107 tokens with KV: the last of an answer never gets any


def test_another_salt_finds_nothing(target, cold):
    prompt, text = prompts()[7], cold[0.0][7]
    with running(target, lambda inputs: []) as under_test:
        asked = [
            new_sequence(i, prompt, max_tokens=MAX_TOKENS, cache_salt=salt)
            for i, salt in enumerate(["one", "other", "", "one", "other", ""])
        ]
        assert [under_test.generate([sequence])[0] for sequence in asked] == [text] * 6
    assert [sequence.num_cached_tokens for sequence in asked] == [0, 0, 0, 80, 80, 80]


def test_prompt_log_probabilities_are_complete_and_the_same_when_warm(target):
    output = OutputParams(logprobs=True, top_logprobs=2, prompt_logprobs=True)
    with running(target, lambda inputs: []) as under_test:
        first, warm_up, second = (
            new_sequence(0, prompts()[7], output=output, cache_salt="first"),
            new_sequence(1, prompts()[7]),
            new_sequence(2, prompts()[7], output=output),
        )
        for sequence in (first, warm_up, second):
            under_test.generate([sequence])
    assert second.num_cached_tokens == 0
    of_prompts = [under_test.outputs[s.sequence_id][0].prompt_logprobs for s in (first, second)]
    assert of_prompts[0] == of_prompts[1]
    assert len(of_prompts[1]) == 89


def test_gauges_tell_how_many_blocks_could_be_taken(target):
    with running(target, lambda inputs: []) as under_test:
        under_test.generate([new_sequence(0, prompts()[7])])
    for group in ("full_attention", "sliding_attention"):
        num_blocks = under_test.metrics.value(names.KV_BLOCKS, group=group)
        assert under_test.metrics.value(names.KV_FREE_BLOCKS, group=group) == num_blocks > 0
