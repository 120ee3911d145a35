"""The sampling kernels, interpreted on the CPU, against plain torch: always the same token."""

import math
import random
from dataclasses import replace
from itertools import product

import pytest
import torch

from tandem.core.sampling_params import SamplingParams
from tandem.sampling.fused_choice import fused_sample
from tandem.sampling.rows import SamplingRows
from tandem.sampling.sampler import plain_sample

LAST_SEED, LAST_POSITION = 2**63 - 1, 2**31 - 1
NUM_ROWS = 8  # which are computed one after the other here

# The interpreter's numpy warns of lanes that are not used, and of a quotient that is meant to be infinite.
pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered:RuntimeWarning")


def random_params(chance: random.Random, vocab_size: int) -> SamplingParams:
    """Every combination of fields, extremes included; to sort more than 128 candidates is slow here."""
    return SamplingParams(
        temperature=chance.choice([0.0, 0.3, 1.0, 1.0, 4.0]),
        top_k=chance.choice([0, 0, 1, 2, 5, 12] if vocab_size > 128 else [0, 0, 1, 2, 5, 40, 300]),
        top_p=chance.choice([1.0, 0.95, 0.5, 1e-9]),
        min_p=chance.choice([0.0, 0.0, 0.05, 1.0]),
        seed=chance.choice([0, LAST_SEED, chance.randrange(2**63)]),
    )


def random_logits(shape: str, num_rows: int, vocab_size: int) -> torch.Tensor:  # -> [num_rows, vocab_size]
    logits = torch.randn(num_rows, vocab_size, generator=torch.Generator().manual_seed(vocab_size))
    if shape == "many ties":
        return (logits * 3).round() / 2
    if shape == "few allowed":
        return logits.masked_fill(torch.arange(vocab_size) % 7 != 3, -math.inf)
    if shape == "equal":
        return logits.mul_(0.0)  # of both signs
    return logits * {"flat": 1.0, "peaked": 9.0}[shape]


@pytest.mark.parametrize(
    ("shape", "vocab_size"),
    [
        *product(("flat", "peaked", "many ties", "few allowed", "equal"), (7, 120)),
        *product(("flat", "peaked", "many ties", "few allowed"), (1030,)),
    ],
)
def test_the_tokens_of_plain_torch(shape: str, vocab_size: int) -> None:
    chance = random.Random(vocab_size)
    positions = [chance.choice([0, LAST_POSITION, chance.randrange(2**31)]) for _ in range(NUM_ROWS)]
    pairs = [(random_params(chance, vocab_size), position) for position in positions]
    logits, rows = random_logits(shape, len(pairs), vocab_size), SamplingRows.from_params(pairs)
    expected = plain_sample(logits, rows).tolist()
    assert fused_sample(logits, rows).tolist() == expected


def test_logits_of_16_bits() -> None:
    """Are read as they are: the same tokens as of the same numbers in 32 bits."""
    chance = random.Random(0)
    pairs = [(random_params(chance, 120), position) for position in range(NUM_ROWS)]
    logits, rows = random_logits("flat", len(pairs), 120).bfloat16(), SamplingRows.from_params(pairs)
    assert fused_sample(logits, rows).tolist() == plain_sample(logits.float(), rows).tolist()


def test_many_candidates() -> None:
    """More than are sorted at once as a rule, all of them tied."""
    logits = torch.zeros(1, 200)
    rows = SamplingRows.from_params([(SamplingParams(top_k=150, top_p=0.7, seed=5), 3)])
    assert fused_sample(logits, rows).tolist() == plain_sample(logits, rows).tolist()


def test_nothing_need_be_known_of_the_batch() -> None:
    params = [SamplingParams(temperature=0.0), SamplingParams(top_k=3), SamplingParams(temperature=0.0, top_k=9)]
    logits = random_logits("many ties", 3, 120)
    for some in (params, params[::2]):
        rows = SamplingRows.from_params([(one, 4) for one in some])
        unknown = replace(rows, is_all_greedy=False, max_top_k=None)
        assert fused_sample(logits[: len(some)], unknown).tolist() == fused_sample(logits[: len(some)], rows).tolist()


@pytest.mark.parametrize("top_k", [3, 5, 1500])
@pytest.mark.parametrize("top_p", [1.0, 0.5])
def test_more_near_ties_than_are_gathered(top_k: int, top_p: float) -> None:
    """Four tokens above 2496 equals: the floor of a greater top-k is a tie of them all."""
    logits = torch.zeros(2, 2500)
    logits[:, [17, 400, 2000, 2499]] = torch.tensor([0.5, 0.25, 0.5, 0.125])
    rows = SamplingRows.from_params([(SamplingParams(top_k=top_k, top_p=top_p, seed=seed), 5) for seed in range(2)])
    assert fused_sample(logits, rows).tolist() == plain_sample(logits, rows).tolist()


@pytest.mark.parametrize(("share", "num_left"), [(0.125, 1), (0.25, 2), (0.375, 3)])
@pytest.mark.parametrize("top_k", [0, 8])
def test_a_mass_that_is_reached_exactly(top_k: int, share: float, num_left: int) -> None:
    """Of eight equals, which hold all the mass, top-p leaves those of the lowest ids and not one more."""
    num_rows = 5 * num_left - 1  # until each was chosen
    logits = torch.full((num_rows, 120), -100.0)
    logits[:, 15:55:5] = 2.0
    params = [SamplingParams(top_k=top_k, top_p=share, seed=seed) for seed in range(num_rows)]
    rows = SamplingRows.from_params([(one, 9) for one in params])
    chosen = fused_sample(logits, rows)
    assert set(chosen.tolist()) == set(range(15, 15 + num_left * 5, 5))


def test_rows_that_need_more_turns_than_there_are() -> None:
    """A top-p that leaves one token of 2,000 that differ little: a search for each record, eight on the mean."""
    logits = torch.rand(3, 2000, generator=torch.Generator().manual_seed(3))
    rows = SamplingRows.from_params([(SamplingParams(top_p=1e-9, seed=seed), 1) for seed in range(3)])
    assert fused_sample(logits, rows).tolist() == logits.argmax(-1).tolist()


@pytest.mark.parametrize("top_k", [0, 2])
def test_almost_no_temperature_is_greedy(top_k: int) -> None:
    logits = torch.randn(1, 200, generator=torch.Generator().manual_seed(4))
    rows = SamplingRows.from_params([(SamplingParams(temperature=5e-324, top_k=top_k), 0)])
    assert fused_sample(logits, rows).item() == logits.argmax()


def test_rows_may_be_views_and_none() -> None:
    padded = torch.randn(6, 200, generator=torch.Generator().manual_seed(0))
    view = padded[::2, :120]
    params = [SamplingParams(), SamplingParams(top_k=4), SamplingParams(temperature=0.0)]
    rows = SamplingRows.from_params([(one, 7) for one in params])
    assert fused_sample(view, rows).tolist() == plain_sample(view, rows).tolist()
    assert fused_sample(view[:0], SamplingRows.from_params([])).tolist() == []


def test_greedy_rows_need_no_fields() -> None:
    logits = torch.randn(3, 130, generator=torch.Generator().manual_seed(1))
    logits[1, [5, 80]] = 9.0
    assert fused_sample(logits, SamplingRows.from_params([])).tolist() == logits.argmax(-1).tolist()


@pytest.mark.parametrize("value", [-math.inf, math.inf, math.nan])
@pytest.mark.parametrize(
    "params", [SamplingParams(), SamplingParams(top_p=0.9), SamplingParams(top_k=4), SamplingParams(temperature=0.0)]
)
def test_broken_logits_still_give_a_token(value: float, params: SamplingParams) -> None:
    rows = SamplingRows.from_params([(params, 0), (params, 1)])
    for logits in (torch.full((2, 70), value), torch.randn(2, 70).index_fill(1, torch.tensor([3]), value)):
        assert all(0 <= token_id < 70 for token_id in fused_sample(logits, rows).tolist())
