"""Rounds that run ahead of the host: the same tokens as rounds that wait for it, whatever happens in between.

Attention is planned by the reference here, as interpreted kernels are slow; that both plan alike is tested with them.
"""

import random
import time

import pytest
import torch

from tandem.core.sampling_params import OutputParams, StoppingParams
from tandem.core.sequence import FinishReason
from tandem.engine.device_drafter import DeviceDrafter
from tandem.engine.draft_source import DrafterInfo, Drafts
from tandem.engine.in_process_ahead import InProcessAhead
from tandem.engine.run_ahead import RunAhead
from tandem.engine.scheduler import Scheduler
from tandem.engine.steady_runner import Launched, SteadyRunner
from tandem.models.gemma4.weights import load_drafter, load_target
from tests.engines import new_sequence, running
from tests.unit.attention.device_planned import DevicePlanned

VOCABULARY = 64
LIMITS = {"max_sequences": 4, "max_context": 128, "kv_tokens": 512, "prefix_cache": False}


@pytest.fixture(scope="module")
def device_target(pair):
    """The target as on a GPU: rounds are planned without the host's knowledge."""
    target = load_target(pair[0], torch.float32, "cpu")
    target.backend = DevicePlanned(target.config.num_attention_heads)
    return target


@pytest.fixture(autouse=True)
def steady_rounds(monkeypatch):
    """Counts rounds that ran ahead: a test of them that meets none tests nothing."""
    counts = {"settled": 0}
    settle = RunAhead.settle

    def counting(self):
        counts["settled"] += 1
        return settle(self)

    monkeypatch.setattr(RunAhead, "settle", counting)
    yield counts
    assert counts["settled"] > 0


class Scribbler:
    """An `AheadSource` that writes anything at all where drafts belong."""

    info = DrafterInfo("scribbler", 7, "")

    def __init__(self, inputs):
        self.drafts = torch.zeros(inputs.spec.num_slots, inputs.spec.max_draft_tokens, dtype=torch.int64)
        self._generator = torch.Generator().manual_seed(0)

    def draft_ahead(self, slots, num_tokens):
        shape = self.drafts.shape
        self.drafts.copy_(torch.randint(-(1 << 40), 1 << 40, shape, generator=self._generator))
        few = torch.randint(0, VOCABULARY, shape, generator=self._generator)
        self.drafts.copy_(torch.where(self.drafts > 0, few, self.drafts))
        return num_tokens

    def begin(self, wanted):
        return False

    def collect(self):
        return Drafts(())

    def close(self):
        pass


class Oracle(Scribbler):
    """Knows the texts to come, by their seeds."""

    def __init__(self, inputs, texts):
        super().__init__(inputs)
        self._inputs, self._texts = inputs, texts

    def draft_ahead(self, slots, num_tokens):
        self.drafts.fill_(0)
        for slot in slots:
            text, start = self._texts[int(self._inputs.seeds[slot])], int(self._inputs.positions[slot]) + 1
            following = text[start : start + num_tokens]
            self.drafts[slot, : len(following)] = torch.tensor(following, dtype=torch.int64)
        return num_tokens


def honest(pair, target, k=7):
    def make(inputs):
        network = load_drafter(pair[1], target.config, torch.float32, "cpu", inputs.embedding)
        network.backend = DevicePlanned(network.config.text.num_attention_heads, is_batch_invariant=False)
        drafts = torch.zeros(inputs.spec.num_slots, inputs.spec.max_draft_tokens, dtype=torch.int64)
        return InProcessAhead(DeviceDrafter(network, inputs, drafts), DrafterInfo("mtp", k, "test"))

    return make


def sequences(k, temperature=0.0, max_tokens=14, **kwargs):
    rng = random.Random(3)
    prompts = [[rng.randrange(2, VOCABULARY) for _ in range(rng.randint(1, 40))] for _ in range(5)]
    return [
        new_sequence(i, prompt, max_tokens=max_tokens + i, k=k, seed=i * 17, temperature=temperature, **kwargs)
        for i, prompt in enumerate(prompts)
    ]


def replace_k(sequence, k):
    sequence.num_speculative_tokens = k
    return sequence


@pytest.fixture(scope="module")
def plain(target):
    """What rounds that wait for the host write."""
    texts = {}
    for temperature in (0.0, 0.8):
        with running(target, lambda inputs: [], **LIMITS) as under_test:
            texts[temperature] = under_test.generate(sequences(0, temperature))
    return texts


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize(("source", "k"), [("none", 0), ("honest", 3), ("honest", 7), ("scribbler", 7)])
def test_the_text_is_the_same(device_target, pair, plain, source, k, temperature):
    sources = {"none": lambda inputs: [], "honest": honest(pair, device_target), "scribbler": Scribbler}
    with running(device_target, sources[source], **LIMITS) as under_test:
        assert under_test.generate(sequences(k, temperature)) == plain[temperature]


def test_drafts_stand_as_far_as_a_request_allows(device_target, plain):
    prompts = sequences(0)
    texts = {one.sampling.seed: [*one.prompt_token_ids, *text] for one, text in zip(prompts, plain[0.0], strict=True)}
    allowed = [7, 3, 0, 7, 7]
    asked = [replace_k(one, k) for one, k in zip(prompts, allowed, strict=True)]
    with running(device_target, lambda inputs: Oracle(inputs, texts), **LIMITS) as under_test:
        assert under_test.generate(asked) == plain[0.0]
    most = [max(output.num_accepted_tokens for output in under_test.outputs[one.sequence_id]) for one in asked]
    assert most == allowed


def test_few_drafts_go_through_a_round_with_room_for_more(device_target, plain):
    """The judge lets all stand that there are: nothing that stands behind them is any."""
    prompts = sequences(0)
    texts = {one.sampling.seed: [*one.prompt_token_ids, *text] for one, text in zip(prompts, plain[0.0], strict=True)}

    class Brief(Oracle):
        info = DrafterInfo("brief", 3, "")

    judge = lambda own, drafts, counts: counts  # noqa: E731
    with running(device_target, lambda inputs: Brief(inputs, texts), judge=judge, **LIMITS) as under_test:
        assert under_test.generate(sequences(7)) == plain[0.0]
    accepted = [output.num_accepted_tokens for outputs in under_test.outputs.values() for output in outputs]
    assert max(accepted) == 3


@pytest.fixture
def rounds(monkeypatch):
    """Counts rounds that were launched, and those that the host waited for."""
    launch, wait, counts = SteadyRunner.launch, Launched.wait, {"launched": 0, "waited for": 0}

    def launching(self, *args):
        counts["launched"] += 1
        return launch(self, *args)

    def waiting(self):
        counts["waited for"] += 1
        return wait(self)

    monkeypatch.setattr(SteadyRunner, "launch", launching)
    monkeypatch.setattr(Launched, "wait", waiting)
    return counts


def test_the_last_tokens_are_sent_before_the_surplus_round_has_ended(device_target, plain, rounds, steady_rounds):
    """Nobody waits for the round that was launched before it was known that the last sequence ends."""
    prompt, text = list(sequences(0)[0].prompt_token_ids), plain[0.0][0]
    length = next(place for place, token_id in enumerate(text) if place > 7 and token_id not in text[:place]) + 1
    stopping = StoppingParams(100, stop_token_ids=frozenset({text[length - 1]}))
    with running(device_target, lambda inputs: Oracle(inputs, {0: prompt + text}), **LIMITS) as under_test:
        for number in range(2):
            sequence = new_sequence(number, prompt, k=7, stopping=stopping)
            assert under_test.generate([sequence]) == [text[:length]]
            # By the time of the second text, the first one's surplus round has been waited for too.
            assert rounds["waited for"] == steady_rounds["settled"] + number
            assert rounds["launched"] == rounds["waited for"] + 1


@pytest.mark.parametrize("max_tokens", range(2, 14))
def test_no_round_is_launched_where_none_may_be_left(device_target, plain, rounds, steady_rounds, max_tokens):
    """A sequence alone that ends by its length, whatever stands: the device is free when it ends."""
    prompt, text = list(sequences(0)[0].prompt_token_ids), plain[0.0][0]
    with running(device_target, lambda inputs: Oracle(inputs, {0: prompt + text}), **LIMITS) as under_test:
        assert under_test.generate([new_sequence(0, prompt, max_tokens, k=7)]) == [text[:max_tokens]]
    assert rounds["launched"] == steady_rounds["settled"]


def test_no_round_has_more_rows_than_a_step_may(device_target, pair, plain, monkeypatch):
    launch, shapes = SteadyRunner.launch, set()

    def recording(self, *args):
        launched = launch(self, *args)
        shapes.add((launched.shape.batch, launched.shape.num_drafts))
        return launched

    monkeypatch.setattr(SteadyRunner, "launch", recording)
    limits = {**LIMITS, "max_step_tokens": 12}
    with running(device_target, honest(pair, device_target), **limits) as under_test:
        assert under_test.generate(sequences(7)) == plain[0.0]
    assert {(1, 7), (2, 5)} <= shapes <= {(1, 0), (1, 7), (2, 0), (2, 5), (4, 0), (4, 2)}


def test_a_round_that_needs_the_host_comes_between(device_target, pair, plain):
    """Log-probabilities are the host's affair: their sequence and all beside it go on, round by round."""
    with running(device_target, honest(pair, device_target), **LIMITS) as under_test:
        mixed = sequences(4)
        mixed[1].output = OutputParams(logprobs=True)
        mixed[1].stopping = type(mixed[1].stopping)(5)
        texts = under_test.generate(mixed)
    assert texts[0] == plain[0.0][0] and texts[2:] == plain[0.0][2:]
    assert texts[1] == plain[0.0][1][:5]


def test_what_is_cancelled_while_a_round_is_under_way_frees_its_slot(device_target, pair, plain):
    with running(device_target, honest(pair, device_target), **LIMITS) as under_test:
        long = new_sequence(50, [5, 6, 7], max_tokens=100, k=7)
        under_test.engine.submit(long)
        while not under_test.outputs.get(50):
            time.sleep(0.01)
        under_test.engine.cancel(50)
        texts = under_test.generate(sequences(7))
        assert under_test.end(long).reason is FinishReason.CANCELLED
    assert texts == plain[0.0]


def test_a_dry_pool_settles_and_preempts(device_target, pair, plain):
    limits = {**LIMITS, "kv_tokens": 80}
    with running(device_target, honest(pair, device_target), **limits) as under_test:
        assert under_test.generate(sequences(7)) == plain[0.0]


def test_drafts_that_do_not_come_cannot_stand(device_target, plain):
    """Whatever the judge says: here one that lets all stand that a sequence may be given."""

    class Absent(Scribbler):
        def draft_ahead(self, slots, num_tokens):
            return 0

    with running(device_target, Absent, judge=lambda own, drafts, counts: counts, **LIMITS) as under_test:
        assert under_test.generate(sequences(7)) == plain[0.0]


def test_who_decodes_waits_for_no_drafts_while_prompts_are_computed(pair, device_target, monkeypatch):
    """Drafts that the host asks for come only in steps without prompts: here, where a text tells log-probabilities."""
    steps = []
    schedule = Scheduler.schedule

    def watched(self, drafts):
        step = schedule(self, drafts)
        steps.append((any(not one.sequence.is_decoding for one in step), sum(map(len, drafts.values()))))
        return step

    monkeypatch.setattr(Scheduler, "schedule", watched)
    with running(device_target, honest(pair, device_target), **LIMITS, max_step_tokens=24) as under_test:
        under_test.generate(sequences(7))
        told = new_sequence(9, [5, 6], 12, 7, output=OutputParams(logprobs=True))
        under_test.generate([told])
    with_prompts = [drafts for has_prompt, drafts in steps if has_prompt]
    assert len(with_prompts) > 5 and not any(with_prompts)
    assert any(drafts for has_prompt, drafts in steps if not has_prompt)
