"""Every field of a request, over all five targets, with speculation and without.

The tokens must be the same, and so must the log-probabilities.
"""

import random
from dataclasses import dataclass, replace

import pytest

from tandem.core.sampling_params import OutputParams, StoppingParams
from tandem.core.sequence import Sequence
from tandem.telemetry import metrics as names
from tests.checkpoints import VARIANTS, make_tiny_pair
from tests.engines import load_tiny_target, mtp_drafts, new_sequence, running
from tests.lossless.lookup import LookupSource
from tests.lossless.near_tie import is_near_tie
from tests.lossless.oracle import OracleDrafter

MAX_TOKENS = 24
SHORTEST_PROMPT, LONGEST_PROMPT = 3, 40  # the sliding window has 8 tokens, a KV block 16
VOCABULARY_SIZE = 64
LOGPROB_TOLERANCE = 1e-4
SEED = 9  # of weights under which every field changes the text, in all variants

# One request a name: what differs from plain greedy decoding.
FIELDS = {
    "greedy": {},
    "temperature": {"temperature": 0.8},
    "top_k": {"temperature": 1.0, "top_k": 5},
    "top_p": {"temperature": 1.0, "top_p": 0.7},
    "min_p": {"temperature": 1.0, "min_p": 0.2},
    "all filters": {"temperature": 1.3, "top_k": 20, "top_p": 0.9, "min_p": 0.02},
    "repetition_penalty": {"repetition_penalty": 1.4},
    "presence_penalty": {"temperature": 0.7, "presence_penalty": 1.5},
    "frequency_penalty": {"frequency_penalty": 1.2},
    "negative penalties": {"temperature": 0.7, "repetition_penalty": 0.7, "frequency_penalty": -0.3},
    "logit_bias": {"temperature": 0.9, "logit_bias": ((5, 6.0), (9, -100.0), (11, 3.5))},
    "stop_token_ids": {"stopping": StoppingParams(MAX_TOKENS, stop_token_ids=frozenset(range(0, 64, 9)))},
    "min_tokens": {"stopping": StoppingParams(MAX_TOKENS, 10, frozenset(range(0, 64, 5))), "temperature": 0.8},
    "top_logprobs": {"temperature": 0.8, "output": OutputParams(logprobs=True, top_logprobs=3)},
    "prompt_logprobs": {"output": OutputParams(logprobs=True, top_logprobs=2, prompt_logprobs=True)},
    "everything": {
        "temperature": 0.9,
        "top_k": 30,
        "top_p": 0.95,
        "min_p": 0.01,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.4,
        "frequency_penalty": 0.2,
        "logit_bias": ((3, 2.0),),
        "stopping": StoppingParams(MAX_TOKENS, 5, frozenset({7, 8})),
        "output": OutputParams(logprobs=True, top_logprobs=2),
    },
}


@dataclass(frozen=True)
class Alone:
    """What the target alone writes: one sequence at a time, without a draft."""

    paths: tuple
    target: object
    texts: dict[str, list[int]]
    logprobs: dict[str, tuple]

    def texts_by_prompt(self):
        return {prompt_of(name): text for name, text in self.texts.items()}


def prompt_of(name) -> tuple[int, ...]:
    """Each field has a prompt of its own, from below the window to far beyond it."""
    index = list(FIELDS).index(name)
    length = SHORTEST_PROMPT + index * (LONGEST_PROMPT - SHORTEST_PROMPT) // (len(FIELDS) - 1)
    rng = random.Random(index)
    return (2, index + 4, *(rng.randrange(4, VOCABULARY_SIZE) for _ in range(length - 2)))


def sequence_of(name, k) -> Sequence:
    index = list(FIELDS).index(name)
    return new_sequence(index, prompt_of(name), MAX_TOKENS, k, seed=100 + index, **FIELDS[name])


def told(under_test, sequence):
    """The log-probabilities of prompt and output, as one list."""
    outputs = under_test.outputs[sequence.sequence_id]
    return tuple(about for output in outputs for about in (*output.prompt_logprobs, *output.logprobs))


@pytest.fixture(scope="module", params=VARIANTS)
def alone(request, tmp_path_factory):
    paths = make_tiny_pair(tmp_path_factory.mktemp("pair"), SEED, **VARIANTS[request.param])
    target = load_tiny_target(paths)
    texts, logprobs = {}, {}
    with running(target, lambda inputs: [], prefix_cache=False) as under_test:
        for name in FIELDS:
            sequence = sequence_of(name, 0)
            texts[name] = under_test.generate([sequence])[0]
            logprobs[name] = told(under_test, sequence)
    return Alone(paths, target, texts, logprobs)


def check(alone, name, sequence, text, logprobs, what):
    expected = alone.texts[name]
    if text != expected:
        at = next(i for i, (a, b) in enumerate(zip(text, expected, strict=False)) if a != b)
        before = replace(sequence_of(name, 0), prompt_token_ids=(*prompt_of(name), *expected[:at]))
        assert is_near_tie(alone.target, list(before.prompt_token_ids), text[at], expected[at], sequence.sampling), (
            f"{what}, {name}: token {at} is {text[at]} instead of {expected[at]}"
        )
        return
    assert len(logprobs) == len(alone.logprobs[name]), f"{what}, {name}"
    for ours, theirs in zip(logprobs, alone.logprobs[name], strict=True):
        assert ours.chosen == pytest.approx(theirs.chosen, abs=LOGPROB_TOLERANCE)
        assert [i for i, _ in ours.top] == [i for i, _ in theirs.top], f"{what}, {name}"


def run_and_check(alone, drafts_of, k, what, **limits):
    sequences = {name: sequence_of(name, k) for name in FIELDS}
    with running(alone.target, drafts_of, **limits) as under_test:
        texts = under_test.generate(sequences.values())
    for (name, sequence), text in zip(sequences.items(), texts, strict=True):
        check(alone, name, sequence, text, told(under_test, sequence), what)
    return under_test.metrics


def oracle(alone):
    return lambda inputs: OracleDrafter(alone.texts_by_prompt(), VOCABULARY_SIZE)


def test_the_fields_do_something(alone):
    """Else their equality would say nothing."""
    assert len({tuple(text) for text in alone.texts.values()}) == len(FIELDS)
    assert len(alone.texts["min_tokens"]) >= 10
    assert any(len(text) < MAX_TOKENS for text in alone.texts.values())
    assert len(alone.logprobs["prompt_logprobs"]) == MAX_TOKENS + len(prompt_of("prompt_logprobs")) - 1


@pytest.mark.parametrize("k", [0, 1, 4, 7])
def test_all_together_with_drafts_that_are_mostly_right(alone, k):
    metrics = run_and_check(alone, oracle(alone), k, f"oracle, K={k}")
    accepted, drafted = metrics.value(names.SPEC_ACCEPTED_TOKENS), metrics.value(names.SPEC_DRAFT_TOKENS)
    assert (accepted > drafted / 3 and accepted < drafted) if k else drafted == 0


@pytest.mark.parametrize("k", [1, 4, 7])
def test_all_together_with_the_mtp_drafter(alone, k):
    metrics = run_and_check(alone, mtp_drafts(alone.target, alone.paths[1]), k, f"MTP, K={k}")
    assert metrics.value(names.SPEC_DRAFT_TOKENS) > 0


def test_with_adaptive_k(alone):
    run_and_check(alone, oracle(alone), 7, "adaptive K", adaptive_k=True)


def test_with_the_lookup_drafter(alone):
    metrics = run_and_check(alone, lambda inputs: LookupSource(), 4, "lookup")
    assert metrics.value(names.SPEC_ACCEPTED_TOKENS) > 0


def test_with_two_drafters_to_choose_from(alone):
    run_and_check(alone, lambda inputs: [LookupSource(), oracle(alone)(inputs)], 7, "two drafters", adaptive_k=True)


def test_again_with_a_warm_prefix_cache(alone):
    with running(alone.target, oracle(alone)) as under_test:
        for temperature in ("cold", "warm"):
            for name in FIELDS:
                under_test.outputs.clear()
                sequence = sequence_of(name, 4)
                text = under_test.generate([sequence])[0]
                check(alone, name, sequence, text, told(under_test, sequence), temperature)
    assert under_test.metrics.value(names.CACHED_TOKENS) > 0


@pytest.mark.parametrize("k", [0, 4])
def test_with_preemption(alone, k):
    """The cache holds little more than one sequence, so all the others are thrown out again and again."""
    metrics = run_and_check(alone, oracle(alone), k, f"preemption, K={k}", kv_tokens=96)
    assert metrics.value(names.PREEMPTIONS) > 0
