"""Sampling from the logits of a few tokens is sampling from a vocabulary whose other tokens are impossible."""

import math

import pytest
import torch

from tandem.core.sampling_params import SamplingParams
from tandem.sampling.rows import SamplingRows
from tandem.sampling.sampler import sample

VOCAB_SIZE = 512
NUM_ROWS = 64
GREEDY = SamplingParams(temperature=0.0)
SETTINGS = {
    "greedy": [GREEDY],
    "plain": [SamplingParams(seed=1)],
    "top-k": [SamplingParams(top_k=5, seed=2), SamplingParams(top_k=9, temperature=2.0, seed=3)],
    "top-k beyond the tokens": [SamplingParams(top_k=300, seed=2)],
    "top-p": [SamplingParams(top_p=0.7, temperature=1.3, seed=4)],
    "min-p": [SamplingParams(min_p=0.1, seed=5)],
    "a batch of all": [GREEDY, SamplingParams(top_k=7, top_p=0.9, min_p=0.02, seed=6), SamplingParams(seed=7)],
}


def rows_of(params: list[SamplingParams]) -> SamplingRows:
    return SamplingRows.from_params([(params[row % len(params)], 40 + row) for row in range(NUM_ROWS)])


def tied_logits() -> torch.Tensor:  # -> [NUM_ROWS, VOCAB_SIZE]
    """Logits of few distinct values, both zeros among them, so that ties decide."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randint(-6, 6, (NUM_ROWS, VOCAB_SIZE), generator=generator) / 2.0
    signs = torch.randint(0, 2, logits.shape, generator=generator) * 2.0 - 1.0
    return torch.where(logits == 0.0, logits * signs, logits)


def some_token_ids(count: int) -> torch.Tensor:  # -> [NUM_ROWS, count] int64, others in each row, in no order
    generator = torch.Generator().manual_seed(4)
    return torch.stack([torch.randperm(VOCAB_SIZE, generator=generator)[:count] for _ in range(NUM_ROWS)])


@pytest.mark.parametrize("count", [1, 40, VOCAB_SIZE])
@pytest.mark.parametrize("params", SETTINGS.values(), ids=SETTINGS.keys())
def test_it_is_the_vocabularys_choice_where_the_others_are_impossible(params: list[SamplingParams], count: int) -> None:
    logits, token_ids, rows = tied_logits(), some_token_ids(count), rows_of(params)
    few = logits.gather(1, token_ids)
    whole = torch.full_like(logits, -math.inf).scatter_(1, token_ids, few)
    chosen = sample(few, rows, token_ids)
    assert chosen.equal(sample(whole, rows))
    assert (chosen.unsqueeze(1) == token_ids).any(1).all()


@pytest.mark.parametrize("value", [-math.inf, math.inf, math.nan])
@pytest.mark.parametrize("params", [SamplingParams(), SamplingParams(top_k=4), GREEDY])
def test_broken_logits_still_give_one_of_the_tokens(value: float, params: SamplingParams) -> None:
    rows, token_ids = rows_of([params]), some_token_ids(20)
    for logits in (
        torch.full((NUM_ROWS, 20), value),
        torch.randn(NUM_ROWS, 20).index_fill(1, torch.tensor([3]), value),
    ):
        assert (sample(logits, rows, token_ids).unsqueeze(1) == token_ids).any(1).all()
