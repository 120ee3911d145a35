import math

import pytest
import torch

from tandem.core.sampling_params import SamplingParams
from tandem.sampling.filters import filter_logits
from tandem.sampling.rows import SamplingRows

# Probabilities 1/2, 1/4, 1/8, 1/16, 1/16: every limit below is met exactly or clearly missed.
HALVES = [math.log(2.0) * exponent for exponent in (4.0, 3.0, 2.0, 1.0, 1.0)]


def kept(params: SamplingParams, logits: list[float]) -> list[int]:
    filtered = filter_logits(torch.tensor([logits]), SamplingRows.from_params([(params, 0)]))
    return filtered[0].isfinite().nonzero().flatten().tolist()


@pytest.mark.parametrize(
    ("params", "num_kept"),
    [
        (SamplingParams(), 5),
        (SamplingParams(top_k=1), 1),
        (SamplingParams(top_k=3), 3),
        (SamplingParams(top_k=4), 4),  # the last two tie: the first of them stays
        (SamplingParams(top_k=99), 5),
        (SamplingParams(top_p=1e-9), 1),
        (SamplingParams(top_p=0.499), 1),
        (SamplingParams(top_p=0.501), 2),
        (SamplingParams(top_p=0.749), 2),
        (SamplingParams(top_p=0.751), 3),
        (SamplingParams(top_p=0.93), 4),
        (SamplingParams(top_p=0.999), 5),
        (SamplingParams(top_k=2, top_p=0.66), 1),  # two thirds of what top-k left
        (SamplingParams(top_k=2, top_p=0.67), 2),
        (SamplingParams(min_p=0.249), 3),
        (SamplingParams(min_p=0.251), 2),
        (SamplingParams(min_p=1.0), 1),
        (SamplingParams(temperature=0.5, top_p=0.74), 1),  # 256/344 of the mass once sharpened
        (SamplingParams(temperature=2.0, min_p=0.49), 3),  # ratios become their square roots
        (SamplingParams(temperature=0.0), 1),
    ],
)
def test_how_many_stay(params: SamplingParams, num_kept: int) -> None:
    assert kept(params, HALVES) == list(range(num_kept))


def test_top_p_met_exactly_is_enough() -> None:
    assert kept(SamplingParams(top_p=0.5), [1.0, 1.0, 1.0, 1.0]) == [0, 1]


def test_no_top_p_keeps_even_the_impossible_looking() -> None:
    assert kept(SamplingParams(), [0.0, -40.0, -700.0]) == [0, 1, 2]


def test_values_are_logits_over_temperature() -> None:
    rows = SamplingRows.from_params([(SamplingParams(temperature=0.5), 0)])
    assert filter_logits(torch.tensor([[3.0, 1.0]]), rows).tolist() == [[0.0, -4.0]]


def test_more_columns_change_nothing() -> None:
    """A neighbour without top-k widens the batch; a row with top-k must be cut at the same place."""
    logits = torch.randn(200, 512, generator=torch.Generator().manual_seed(0)).sort(descending=True).values
    pairs = [(SamplingParams(top_k=64, top_p=0.05 + 0.0045 * row, temperature=0.7), 0) for row in range(200)]
    rows = SamplingRows.from_params(pairs)
    narrow, wide = filter_logits(logits[:, :64], rows), filter_logits(logits, rows)
    assert narrow.equal(wide[:, :64])
    assert wide[:, 64:].isinf().all()
