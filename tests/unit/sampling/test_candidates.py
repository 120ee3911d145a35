import math

import pytest
import torch

from tandem.sampling.candidates import greedy_token_ids, top_token_ids


def ranked(row: list[float]) -> list[int]:
    return sorted(range(len(row)), key=lambda token: (-row[token], token))


def tied_logits(num_rows: int, vocab_size: int) -> torch.Tensor:
    """Logits of few distinct values, both signs and -inf among them: most tokens tie with many others."""
    generator = torch.Generator().manual_seed(vocab_size)
    logits = torch.randint(-6, 6, (num_rows, vocab_size), generator=generator) / 4.0
    return logits.masked_fill(logits == -0.75, -math.inf)


# 7 and 4098 have no useful block size, 24 a small one, 4096 one level of blocks, 65536 two.
@pytest.mark.parametrize("vocab_size", [1, 7, 24, 4096, 4098, 65_536])
@pytest.mark.parametrize("count", [0, 1, 3, 64, 10**6])
def test_equal_logits_rank_by_token_id(vocab_size: int, count: int) -> None:
    count = min(count, vocab_size)
    logits = tied_logits(4, vocab_size)
    assert top_token_ids(logits, count).tolist() == [ranked(row)[:count] for row in logits.tolist()]


@pytest.mark.parametrize("vocab_size", [1, 7, 24, 4096, 4098, 65_536])
def test_greedy_takes_the_lowest_id_of_equals(vocab_size: int) -> None:
    logits = tied_logits(4, vocab_size)
    assert greedy_token_ids(logits).tolist() == [ranked(row)[0] for row in logits.tolist()]


@pytest.mark.parametrize("vocab_size", [8, 4096])
def test_negative_zero_equals_zero(vocab_size: int) -> None:
    logits = torch.full((1, vocab_size), -1.0)
    logits[0, [2, 5]] = torch.tensor([-0.0, 0.0])
    assert greedy_token_ids(logits).tolist() == [2]
    assert top_token_ids(logits, 2).tolist() == [[2, 5]]
    assert top_token_ids(logits, vocab_size)[0, :2].tolist() == [2, 5]


def test_logits_one_unit_apart_are_not_equal() -> None:
    values = torch.tensor([-2.0, 2.0])
    logits = torch.stack((values, values.nextafter(torch.tensor(math.inf)))).T.reshape(1, 4)
    assert top_token_ids(logits, 3).tolist() == [[3, 2, 1]]
