import math

import pytest
import torch

from tandem.sampling.logprobs import logprobs

LOGITS = torch.tensor([[1.0, 3.0, 3.0, -2.0], [0.0, -math.inf, 0.0, 0.0]])


@pytest.mark.parametrize("num_top", [0, 1, 3, 20])
def test_logprobs_of_the_unfiltered_distribution(num_top: int) -> None:
    expected = LOGITS.double().log_softmax(dim=-1)
    result = logprobs(LOGITS, torch.tensor([3, 1]), num_top)
    assert result.chosen.tolist() == pytest.approx([expected[0, 3].item(), -math.inf], abs=1e-6)
    order = [[1, 2, 0, 3][:num_top], [0, 2, 3, 1][:num_top]]
    assert result.top_token_ids.tolist() == order
    for row in range(2):
        assert result.top[row].tolist() == pytest.approx(expected[row, order[row]].tolist(), abs=1e-6)
