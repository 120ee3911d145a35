"""The demo pair on a GPU: same text with drafter and without, but for near-ties."""

import pytest
import torch
from tokenizers import Tokenizer

from tandem.demo import DEMO_DRAFTER, DEMO_TARGET, held_out_prompts
from tandem.engine.draft_source import DrafterInfo
from tandem.engine.in_process_drafter import InProcessDrafter
from tandem.engine.mtp_drafter import MtpDrafter
from tandem.models.gemma4.weights import load_drafter, load_target
from tandem.telemetry import metrics as names
from tandem.verifier.config import BATCH_INVARIANT_ROWS
from tests.engines import new_sequence, running
from tests.lossless.near_tie import scores

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

NUM_PROMPTS = 20
MAX_TOKENS = 48
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.25}  # of two logits, judged by the float32 target on the CPU


@pytest.fixture(scope="module")
def prompts():
    tokenizer = Tokenizer.from_file(str(DEMO_TARGET / "tokenizer.json"))
    return [tokenizer.encode(text).ids[-150:] for text in held_out_prompts()[:NUM_PROMPTS]]


def drafts_of(target, dtype):
    def make(inputs):
        network = load_drafter(DEMO_DRAFTER, target.config, dtype, "cuda", inputs.embedding)
        return InProcessDrafter(MtpDrafter(network, inputs), DrafterInfo("mtp", 7, "test"))

    return make


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_same_text_with_drafter_and_without(prompts, dtype, record_property):
    target = load_target(DEMO_TARGET, dtype, "cuda")
    on_cpu = load_target(DEMO_TARGET, torch.float32, "cpu")
    texts = {}
    for k in (0, 4):
        with running(target, drafts_of(target, dtype)) as under_test:
            texts[k] = under_test.generate(
                [new_sequence(index, prompt, MAX_TOKENS, k) for index, prompt in enumerate(prompts)]
            )
            accepted = under_test.metrics.value(names.SPEC_ACCEPTED_TOKENS)
            rounds = under_test.metrics.value(names.SPEC_ROUNDS)
    num_near_ties = 0
    for prompt, plain, drafted in zip(prompts, texts[0], texts[4], strict=True):
        at = next((i for i, (a, b) in enumerate(zip(plain, drafted, strict=True)) if a != b), None)
        if at is not None:
            both = scores(on_cpu, [*prompt, *plain[:at]], new_sequence(0, prompt).sampling)
            assert abs(float(both[plain[at]] - both[drafted[at]])) < TOLERANCE[dtype]
            num_near_ties += 1
    print(f"{dtype}: {num_near_ties} near-ties in {NUM_PROMPTS} texts, acceptance length {1 + accepted / rounds:.2f}")
    assert accepted > rounds


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_batch_invariant_steps_leave_no_near_ties(prompts, temperature):
    """As `--batch-invariant true` has it: no step of more rows than round alike."""
    target = load_target(DEMO_TARGET, torch.bfloat16, "cuda")

    def write(batch, k):
        texts = []
        with running(target, drafts_of(target, torch.bfloat16), max_step_tokens=BATCH_INVARIANT_ROWS) as under_test:
            for first in range(0, NUM_PROMPTS, batch):
                together = range(first, min(first + batch, NUM_PROMPTS))
                texts += under_test.generate(
                    [new_sequence(n, prompts[n], MAX_TOKENS, k, seed=n, temperature=temperature) for n in together]
                )
        return texts

    alone = write(1, 0)
    assert write(8, 0) == alone
    assert write(8, 4) == alone
