"""The choice of a token: an exact sample of the filtered distribution that depends on seed and position alone.

Gumbel-max trick: the arg-max of logits / T plus independent standard Gumbel noise is distributed as
softmax(logits / T). A drafter that adds the same noise to similar logits mostly arrives at the same token (a Gumbel
coupling: Daliri, Musco, Suresh, "Coupling without communication and drafter-invariant speculative decoding", 2024).
"""

import torch

from tandem.sampling.candidates import greedy_token_ids, top_token_ids
from tandem.sampling.filters import filter_logits
from tandem.sampling.noise import gumbel, gumbel_of_vocabulary
from tandem.sampling.rows import SamplingRows


def sample(
    logits: torch.Tensor,  # [R, V] float32, after penalties and bias
    rows: SamplingRows,
) -> torch.Tensor:  # [R] int64
    """Chooses one token a row; greedy rows take the most likely token, the lowest id among equals.

    A row's result depends on nothing but that row. Does not wait for the device.
    """
    if rows.is_all_greedy:
        return greedy_token_ids(logits)
    vocab_size = logits.shape[1]
    if rows.max_top_k is None or rows.max_top_k >= vocab_size:
        token_ids = top_token_ids(logits, vocab_size)
        noise = gumbel_of_vocabulary(rows.seeds, rows.positions, vocab_size).gather(1, token_ids)
    else:
        token_ids = top_token_ids(logits, rows.max_top_k)
        noise = gumbel(rows.seeds, rows.positions, token_ids)
    scores = noise.add_(filter_logits(logits.gather(1, token_ids), rows))
    return token_ids.gather(1, scores.argmax(dim=-1, keepdim=True)).squeeze(1)
