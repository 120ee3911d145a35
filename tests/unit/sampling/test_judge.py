import pytest
import torch

from tandem.sampling.judge import judge

GARBAGE = [-1, 2**62, -(2**62)]


@pytest.mark.parametrize(
    ("target", "draft", "num_drafts", "num_accepted"),
    [
        ([5, 6, 7, 8], [5, 6, 7], 3, 3),
        ([5, 6, 7, 8], [5, 6, 9], 3, 2),
        ([5, 6, 7, 8], [9, 6, 7], 3, 0),  # agreement after a rejection does not count
        ([5, 6, 7, 8], [5, 9, 7], 3, 1),
        ([5, 6, 7, 8], [5, 6, 7], 2, 2),  # equal by accident, but never drafted
        ([5, 6, 7, 8], [5, 6, 7], 0, 0),
        ([5, 6, 7, 8], GARBAGE, 3, 0),
        ([5, 6, 7, 8], [5, *GARBAGE[:2]], 3, 1),
        ([0, 0, 0, 0], [0, 0, 0], 1, 1),
        ([5, 6, 7, 8], [5, 6, 7], 99, 3),
        ([5, 6, 7, 8], [5, 6, 7], -1, 0),
        ([5, 6], [5], 1, 1),
        ([5], [], 0, 0),
    ],
)
def test_judge(target: list[int], draft: list[int], num_drafts: int, num_accepted: int) -> None:
    result = judge(
        torch.tensor([target]), torch.tensor([draft], dtype=torch.int64).view(1, -1), torch.tensor([num_drafts])
    )
    assert result.dtype == torch.int64
    assert result.tolist() == [num_accepted]


def test_sequences_are_judged_apart() -> None:
    target = torch.tensor([[1, 2, 3], [1, 2, 3], [1, 2, 3]])
    draft = torch.tensor([[1, 2], [2, 2], [1, 1]])
    assert judge(target, draft, torch.tensor([2, 2, 2])).tolist() == [2, 0, 1]
