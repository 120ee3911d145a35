"""Same token ids as the target alone: drafter in this process, honest and hostile, alone and in mixed batches."""

import pytest

from tandem.telemetry import metrics as names
from tests.engines import lenient_judge, mtp_drafts, running
from tests.lossless.conftest import TEMPERATURES
from tests.unit.engine.hostile import ScriptedDrafter, random_tokens


def sources(reference, drafter_path):
    vocabulary_size = reference.target.config.vocab_size
    return {
        "honest": mtp_drafts(reference.target, drafter_path),
        "hostile": lambda inputs: ScriptedDrafter(random_tokens(vocabulary_size)),
    }


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(
    ("drafter", "k"),  # one that is not asked is not hostile
    [("honest", 0), ("honest", 1), ("honest", 4), ("honest", 7), ("hostile", 1), ("hostile", 7)],
)
def test_in_a_mixed_batch(reference, drafter_path, drafter, k, temperature):
    """All prompts together: their chunks ride along with the verify rows of others, of every length."""
    with running(reference.target, sources(reference, drafter_path)[drafter]) as under_test:
        texts = under_test.generate(reference.sequences(k, temperature))
    reference.check(temperature, texts, f"{drafter}, K={k}, T={temperature}, mixed")
    assert (under_test.metrics.value(names.SPEC_DRAFT_TOKENS) > 0) == (k > 0)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(
    ("drafter", "k"), [("honest", 1), ("honest", 4), ("honest", 7), ("hostile", 1), ("hostile", 7)]
)
def test_alone(reference, drafter_path, drafter, k, temperature):
    """A share of the prompts, one at a time: each in some of the cases. (K = 0 alone is what all are compared with.)"""
    sequences, share = reference.sequences(k, temperature), reference.share(k, temperature)
    with running(reference.target, sources(reference, drafter_path)[drafter]) as under_test:
        texts = [under_test.generate([sequences[number]])[0] for number in share]
    reference.check(temperature, texts, f"{drafter}, K={k}, T={temperature}, alone", share)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("drafter", ["honest", "hostile", "both"])
def test_with_adaptive_k(reference, drafter_path, drafter, temperature):
    """Numbers of drafts and drafters change from round to round and from sequence to sequence."""
    make = sources(reference, drafter_path)
    make["both"] = lambda inputs: [make["honest"](inputs), make["hostile"](inputs)]
    with running(reference.target, make[drafter], adaptive_k=True) as under_test:
        texts = under_test.generate(reference.sequences(7, temperature))
    reference.check(temperature, texts, f"{drafter}, adaptive K, T={temperature}, mixed")
    assert under_test.metrics.value(names.SPEC_DRAFT_TOKENS) > 0


@pytest.mark.parametrize("k", [1, 4, 7])
def test_a_judge_that_accepts_one_wrong_token_is_noticed(reference, drafter_path, k):
    make = sources(reference, drafter_path)["honest"]
    with running(reference.target, make, judge=lenient_judge) as under_test:
        texts = under_test.generate(reference.sequences(k, 0.0))
    with pytest.raises(AssertionError, match="instead of"):
        reference.check(0.0, texts, "broken judge")
