import math
import random

import pytest
import torch

from tandem.core.errors import InvalidRequest
from tandem.core.sampling_params import SamplingParams, StoppingParams
from tandem.core.sequence import Sequence
from tandem.sampling.penalties import LogitAdjustments, TokenCounts
from tests.unit.sampling.reference import penalized

VOCAB_SIZE = 12
ALL = SamplingParams(
    repetition_penalty=1.7, presence_penalty=0.4, frequency_penalty=-0.3, logit_bias=((3, 5.0), (0, -2.0))
)
NO_DRAFTS = torch.empty(0, dtype=torch.int64)


def sequence_of(
    params: SamplingParams, prompt: tuple[int, ...] = (1, 2, 2), output: tuple[int, ...] = (), min_tokens: int = 0
) -> Sequence:
    stopping = StoppingParams(max_tokens=100, min_tokens=min_tokens, stop_token_ids=frozenset({10, 11, 999}))
    sequence = Sequence(0, prompt, params, stopping)
    sequence.commit(list(output))
    return sequence


def adjustments_of(sequence: Sequence) -> LogitAdjustments:
    adjustments = LogitAdjustments.for_sequence(sequence, VOCAB_SIZE)
    assert adjustments is not None
    return adjustments


def random_logits(num_rows: int) -> torch.Tensor:
    return torch.randn(num_rows, VOCAB_SIZE, generator=torch.Generator().manual_seed(num_rows)) * 2


@pytest.mark.parametrize(
    "params",
    [
        ALL,
        SamplingParams(repetition_penalty=2.0),
        SamplingParams(repetition_penalty=0.5),
        SamplingParams(presence_penalty=1.5),
        SamplingParams(frequency_penalty=0.7),
        SamplingParams(logit_bias=((7, -100.0),)),
    ],
)
def test_rows_equal_the_slow_definition(params: SamplingParams) -> None:
    """Row j of a verify sees prompt, output and the drafts d1..dj."""
    prompt, output, drafts = (1, 2, 2), (4, 5, 4), (5, 6, 6, 1)
    logits = random_logits(len(drafts) + 1)
    before = logits.clone()
    adjusted = adjustments_of(sequence_of(params, prompt, output)).apply(logits, torch.tensor(drafts))
    for row in range(len(drafts) + 1):
        expected = penalized(before[row].tolist(), prompt, output + drafts[:row], params)
        assert adjusted[row].tolist() == pytest.approx(expected, abs=1e-5), row
    assert logits.equal(before), "logprobs are taken from the logits afterwards"


def test_counting_rounds_equals_counting_the_history() -> None:
    """100 rounds that emit 0..4 of 4 tokens leave the same counts as a sequence restarted from its history."""
    choose = random.Random(0)
    counts, output = TokenCounts([1, 2, 2], [], VOCAB_SIZE), []
    for _ in range(100):
        token_ids = [choose.randrange(VOCAB_SIZE) for _ in range(4)]
        num_tokens = choose.randrange(5)
        counts.append(torch.tensor(token_ids), torch.tensor(num_tokens))
        output += token_ids[:num_tokens]
        counts.check_integrity()
    rebuilt = TokenCounts([1, 2, 2], output, VOCAB_SIZE)
    assert counts.output.tolist() == rebuilt.output.tolist() == [output.count(token) for token in range(VOCAB_SIZE)]
    assert counts.num_output.item() == rebuilt.num_output.item() == len(output)
    assert counts.in_prompt.nonzero().flatten().tolist() == [1, 2]


def test_integrity_check_notices_a_lost_token() -> None:
    counts = TokenCounts([1], [2, 3], VOCAB_SIZE)
    counts.output[3] = 0
    with pytest.raises(AssertionError):
        counts.check_integrity()


def test_hostile_drafts_change_no_row_before_them() -> None:
    adjustments = adjustments_of(sequence_of(ALL, output=(4,)))
    logits = random_logits(4)
    honest = adjustments.apply(logits, torch.tensor([5, 6, 7]))
    hostile = adjustments.apply(logits, torch.tensor([5, -(2**62), 2**62]))
    assert hostile[:2].equal(honest[:2])
    assert hostile.isfinite().all()


@pytest.mark.parametrize(("num_output", "masked_rows"), [(0, 3), (1, 2), (2, 1), (3, 0), (9, 0)])
def test_stop_tokens_wait_for_min_tokens(num_output: int, masked_rows: int) -> None:
    """With min_tokens = 3, a stop token may be the fourth token at the earliest, as `Sequence.commit` has it."""
    output = tuple([4] * num_output)
    adjustments = adjustments_of(sequence_of(SamplingParams(), output=output, min_tokens=3))
    logits = random_logits(5)
    adjusted = adjustments.apply(logits, torch.tensor([1, 1, 1, 1]))
    expected = logits.clone()
    expected[:masked_rows, [10, 11]] = -math.inf
    assert adjusted.equal(expected)


def test_the_mask_wins_over_a_bias() -> None:
    params = SamplingParams(logit_bias=((10, 100.0),), presence_penalty=-2.0)
    adjusted = adjustments_of(sequence_of(params, min_tokens=1)).apply(random_logits(1), NO_DRAFTS)
    assert adjusted[0, 10].item() == -math.inf


def test_what_the_checkpoint_suppresses_is_never_chosen_whatever_the_bias() -> None:
    params = SamplingParams(suppress_token_ids=(3, 7, VOCAB_SIZE + 1), logit_bias=((3, 100.0),))
    logits = random_logits(2)
    adjusted = adjustments_of(sequence_of(params)).apply(logits, torch.tensor([1]))
    assert (adjusted == -math.inf).nonzero()[:, 1].tolist() == [3, 7, 3, 7]
    assert logits.isfinite().all()
    assert adjusted[:, 8:].equal(logits[:, 8:])


def test_a_token_biased_twice_gets_both() -> None:
    params = SamplingParams(logit_bias=((4, 1.0), (4, 2.0)))
    adjusted = adjustments_of(sequence_of(params)).apply(torch.zeros(1, VOCAB_SIZE), NO_DRAFTS)
    assert adjusted[0, 4].item() == 3.0


def test_a_sequence_that_asks_for_nothing_costs_nothing() -> None:
    assert LogitAdjustments.for_sequence(sequence_of(SamplingParams(top_k=3)), VOCAB_SIZE) is None


def test_bias_outside_the_vocabulary_is_refused() -> None:
    sequence = sequence_of(SamplingParams(logit_bias=((VOCAB_SIZE, 1.0),)))
    with pytest.raises(InvalidRequest, match=r"spec\.sampling\.logit_bias"):
        LogitAdjustments.for_sequence(sequence, VOCAB_SIZE)
