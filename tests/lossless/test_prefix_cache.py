"""Same token ids as the target alone, which has no cache: prompts computed before, whole or in part, drafts and all."""

import pytest

from tandem.telemetry import metrics as names
from tests.engines import mtp_drafts, running
from tests.lossless.conftest import TEMPERATURES


@pytest.mark.parametrize(("k", "temperature"), zip((0, 4), TEMPERATURES, strict=True))
def test_cold_and_warm(reference, drafter_path, k, temperature):
    """Prompts beyond the window find their end in the sliding group and all of it in the full one."""
    with running(reference.target, mtp_drafts(reference.target, drafter_path), kv_tokens=8192) as under_test:
        for state in ("cold", "warm"):
            under_test.outputs.clear()
            asked = reference.sequences(k, temperature)
            reference.check(temperature, under_test.generate(asked), f"K={k}, T={temperature}, {state}")
    assert sum(sequence.num_cached_tokens for sequence in asked) == sum(
        (sequence.num_prompt_tokens - 1) // 16 * 16 for sequence in asked
    )
    num_rounds = under_test.metrics.value(names.SPEC_ROUNDS)
    assert under_test.metrics.value(names.SPEC_ACCEPTED_TOKENS) > (num_rounds / 3 if k else -1)
