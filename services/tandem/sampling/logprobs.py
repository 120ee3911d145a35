"""Log-probabilities for the caller to read; nothing is chosen by them."""

from dataclasses import dataclass

import torch

from tandem.core.sampling_params import MAX_TOP_LOGPROBS
from tandem.sampling.candidates import top_token_ids


@dataclass(frozen=True)
class Logprobs:
    """Natural log-probabilities of chosen tokens and of each row's most likely ones."""

    chosen: torch.Tensor  # [R] float32
    top_token_ids: torch.Tensor  # [R, n] int64, most likely first, equals by ascending id
    top: torch.Tensor  # [R, n] float32


def logprobs(
    logits: torch.Tensor,  # [R, V] float32, as the model gave them: before penalties, bias and filters
    token_ids: torch.Tensor,  # [R] int64, the tokens chosen
    num_top: int,  # 0..MAX_TOP_LOGPROBS
) -> Logprobs:
    """Log-probabilities under the target's own distribution at temperature 1, before filters, as peers report them."""
    assert 0 <= num_top <= MAX_TOP_LOGPROBS
    normalizer = logits.logsumexp(dim=-1, keepdim=True)
    top_ids = top_token_ids(logits, min(num_top, logits.shape[1]))
    return Logprobs(
        chosen=(logits.gather(1, token_ids.unsqueeze(-1)) - normalizer).squeeze(-1),
        top_token_ids=top_ids,
        top=logits.gather(1, top_ids) - normalizer,
    )
