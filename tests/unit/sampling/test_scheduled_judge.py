from fractions import Fraction
from math import floor

import pytest
import torch

from tandem.sampling.scheduled_judge import ScheduledJudge

K = 7


def judged(judge: ScheduledJudge, *num_drafts: int) -> list[int]:
    tokens = torch.zeros(len(num_drafts), K + 1, dtype=torch.int64)
    return judge(tokens, tokens[:, :K], torch.tensor(num_drafts)).tolist()


@pytest.mark.parametrize("acceptance_length", [1.0, 1.37, 3.0, 5.37, 8.0])
def test_the_mean_is_the_one_asked_for(acceptance_length: float) -> None:
    judge = ScheduledJudge(acceptance_length, "cpu")
    counts = [judged(judge, K)[0] for _ in range(1000)]
    assert 1000 * (acceptance_length - 1) - 1.001 < sum(counts) < 1000 * (acceptance_length - 1) + 0.001
    assert max(counts) - min(counts) <= 1, "every round is as near to the mean as a round can be"


def test_the_schedule_is_exact() -> None:
    judge = ScheduledJudge(5.375, "cpu")  # a number that fixed point holds
    mean = Fraction("4.375")
    expected = [floor((r + 1) * mean) - floor(r * mean) for r in range(100)]
    assert [judged(judge, K)[0] for _ in range(100)] == expected


def test_no_more_than_was_drafted() -> None:
    assert judged(ScheduledJudge(6.0, "cpu"), 7, 5, 3, 0, -1) == [5, 5, 3, 0, 0]


def test_every_sequence_has_the_same_round() -> None:
    judge = ScheduledJudge(2.5, "cpu")
    assert [judged(judge, K, K) for _ in range(4)] == [[1, 1], [2, 2], [1, 1], [2, 2]]


def test_rounds_are_counted_in_place() -> None:
    """As a captured graph needs it: the memory stays, its number moves on."""
    judge = ScheduledJudge(1.5, "cpu")
    place = judge._total.data_ptr()
    assert [judged(judge, K)[0] for _ in range(4)] == [0, 1, 0, 1]
    assert judge._total.data_ptr() == place
