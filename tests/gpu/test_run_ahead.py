"""Rounds that run ahead of the host on a GPU, captured as graphs: same text, and nothing in them waits."""

from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer

from tandem.demo import DEMO_DRAFTER, DEMO_TARGET, held_out_prompts
from tandem.engine.device_drafter import DeviceDrafter
from tandem.engine.draft_source import DrafterInfo
from tandem.engine.in_process_ahead import InProcessAhead
from tandem.engine.run_ahead import RunAhead
from tandem.models.gemma4.weights import load_drafter, load_target
from tandem.telemetry import metrics as names
from tests.engines import LIMITS, EngineUnderTest, new_sequence

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

NUM_PROMPTS = 12
MAX_TOKENS = 48
K = 7
# All prompts in one step: rounds beside prompts go without drafts.
WIDE = replace(LIMITS, max_step_tokens=2048, kv_tokens=8192)


@pytest.fixture(scope="module")
def prompts():
    tokenizer = Tokenizer.from_file(str(DEMO_TARGET / "tokenizer.json"))
    return [tokenizer.encode(text).ids[-150:] for text in held_out_prompts()[:NUM_PROMPTS]]


@pytest.fixture(scope="module")
def target():
    return load_target(DEMO_TARGET, torch.float32, "cuda")


def drafts_of(target):
    def make(inputs):
        network = load_drafter(DEMO_DRAFTER, target.config, torch.float32, "cuda", inputs.embedding)
        shape = (inputs.spec.num_slots, inputs.spec.max_draft_tokens)
        drafter = DeviceDrafter(network, inputs, torch.zeros(shape, dtype=torch.int64, device="cuda"))
        drafter.capture(K)
        return InProcessAhead(drafter, DrafterInfo("mtp", K, "test"))

    return make


def write(target, prompts, k, temperature, is_captured=True, **output):
    """The texts, and how many rounds and accepted drafts they took."""
    under_test = EngineUnderTest(target, drafts_of(target), WIDE)
    if is_captured:
        under_test.engine.capture()
    under_test.engine.start()
    try:
        sequences = [
            new_sequence(index, prompt, MAX_TOKENS, k, seed=index, temperature=temperature)
            for index, prompt in enumerate(prompts)
        ]
        texts = under_test.generate(sequences)
    finally:
        under_test.engine.stop()
    assert under_test.engine.wait_until_dead() is None
    metrics = under_test.metrics
    return texts, metrics.value(names.SPEC_ROUNDS), metrics.value(names.SPEC_ACCEPTED_TOKENS)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_same_text_captured_or_not_drafted_or_not(target, prompts, temperature):
    plain, _, _ = write(target, prompts, 0, temperature)
    drafted, rounds, accepted = write(target, prompts, K, temperature)
    eager, _, _ = write(target, prompts, K, temperature, is_captured=False)
    assert drafted == plain == eager
    assert accepted > rounds


def test_launching_a_round_never_waits(target, prompts, monkeypatch):
    launch, launched = RunAhead.launch, []

    def strict(self):
        torch.cuda.set_sync_debug_mode("error")
        try:
            launched.append(launch(self))
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return launched[-1]

    monkeypatch.setattr(RunAhead, "launch", strict)
    write(target, prompts[:4], K, 0.0)
    assert sum(launched) > 5
