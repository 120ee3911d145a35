"""Keys and values of 8 bits on a GPU: the kernels against float64, and the demo pair over weights and KV of 8 bits."""

import pytest
import torch
from tokenizers import Tokenizer

from tandem.attention.paged import PagedBackend
from tandem.demo import DEMO_DRAFTER, DEMO_TARGET, held_out_prompts
from tandem.engine.draft_source import DrafterInfo
from tandem.engine.in_process_drafter import InProcessDrafter
from tandem.engine.mtp_drafter import MtpDrafter
from tandem.kv_cache.scales import KvScales
from tandem.kv_cache.storage import widen_kv, write_kv
from tandem.models.gemma4.fp8_linear import Fp8Linear
from tandem.models.gemma4.weights import load_drafter, load_target
from tandem.telemetry import metrics as names
from tests.engines import new_sequence, running
from tests.gpu.test_paged_backend import BLOCK_SIZE, GROUPS, NUM_HEADS, STEPS, TOLERANCE, Problem

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

SCALES = KvScales(key_exponent=-5, value_exponent=-4)
NUM_PROMPTS, MAX_TOKENS = 12, 32


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("group", GROUPS)
def test_the_kernels_agree_with_float64(group: str, step: str, dtype: torch.dtype) -> None:
    problem = Problem(GROUPS[group], dtype, STEPS[step])
    narrow = torch.zeros_like(problem.kv, dtype=torch.float8_e4m3fn)
    write_kv(narrow, torch.arange(len(narrow), device="cuda"), problem.kv, SCALES)
    problem.kv = widen_kv(narrow, dtype, SCALES)
    backend = PagedBackend(NUM_HEADS, "cuda", dtype)
    plan = backend.prepare(problem.batch, [problem.group], BLOCK_SIZE).plans["group"]
    attended = backend.attend(problem.query, narrow, plan, SCALES)
    assert (attended.double() - problem.expected()).abs().max() < TOLERANCE[dtype]


def test_same_text_with_drafter_and_without() -> None:
    """Greedy, in bfloat16, weights and KV of 8 bits; most texts to the last token."""
    tokenizer = Tokenizer.from_file(str(DEMO_TARGET / "tokenizer.json"))
    prompts = [tokenizer.encode(text).ids[-150:] for text in held_out_prompts()[:NUM_PROMPTS]]
    target = load_target(DEMO_TARGET, torch.bfloat16, "cuda", linear=Fp8Linear)

    def drafts_of(inputs):
        network = load_drafter(DEMO_DRAFTER, target.config, torch.bfloat16, "cuda", inputs.embedding)
        return InProcessDrafter(MtpDrafter(network, inputs), DrafterInfo("mtp", 7, "test"))

    texts = {}
    for k in (0, 4):
        with running(target, drafts_of, kv_dtype="float8_e4m3fn") as under_test:
            sequences = [new_sequence(index, prompt, MAX_TOKENS, k) for index, prompt in enumerate(prompts)]
            texts[k] = under_test.generate(sequences)
            accepted = under_test.metrics.value(names.SPEC_ACCEPTED_TOKENS)
            rounds = under_test.metrics.value(names.SPEC_ROUNDS)
    num_equal = sum(one == other for one, other in zip(texts[0], texts[4], strict=True))
    print(f"8 bits: {num_equal} of {NUM_PROMPTS} texts equal, acceptance length {1 + accepted / rounds:.2f}")
    assert num_equal >= NUM_PROMPTS * 3 // 4 and accepted > rounds
