"""The choice of a token: an exact sample of the filtered distribution that depends on seed and position alone.

Gumbel-max trick: the arg-max of logits / T plus independent standard Gumbel noise is distributed as
softmax(logits / T). A drafter that adds the same noise to similar logits mostly arrives at the same token (a Gumbel
coupling: Daliri, Musco, Suresh, "Coupling without communication and drafter-invariant speculative decoding", 2024).
"""

import torch

from tandem.sampling.candidates import greedy_candidates, greedy_token_ids, top_candidates, top_token_ids
from tandem.sampling.filters import filter_logits
from tandem.sampling.noise import gumbel, gumbel_of_vocabulary
from tandem.sampling.rows import SamplingRows


def sample(
    logits: torch.Tensor,  # [R, V] float32 or bfloat16, after penalties and bias; or [R, C], of a few tokens
    rows: SamplingRows,
    token_ids: torch.Tensor | None = None,  # [R, C] int64, which tokens those are; None: the vocabulary
) -> torch.Tensor:  # [R] int64
    """Chooses one token a row; greedy rows take the most likely token, the lowest id among equals.

    A row's result depends on nothing but that row, and not on the order of its tokens. Does not wait for the device.
    """
    if token_ids is not None:
        return _sample_candidates(logits.float(), rows, token_ids)
    if logits.is_cuda:
        from tandem.sampling.fused_choice import fused_sample

        return fused_sample(logits, rows)
    return plain_sample(logits.float(), rows)


def plain_sample(
    logits: torch.Tensor,  # [R, V] float32
    rows: SamplingRows,
) -> torch.Tensor:  # [R] int64
    """The choice from the vocabulary in plain torch: the definition, step by step."""
    if rows.is_all_greedy:
        return greedy_token_ids(logits)
    vocab_size = logits.shape[1]
    count = _num_considered(rows, vocab_size)
    best = top_token_ids(logits, count)
    if count == vocab_size:
        noise = gumbel_of_vocabulary(rows.seeds, rows.positions, vocab_size).gather(1, best)
    else:
        noise = gumbel(rows.seeds, rows.positions, best)
    return _choose(logits.gather(1, best), best, noise, rows)


def _sample_candidates(
    logits: torch.Tensor,  # [R, C] float32
    rows: SamplingRows,
    token_ids: torch.Tensor,  # [R, C] int64
) -> torch.Tensor:  # [R] int64
    if rows.is_all_greedy:
        return greedy_candidates(logits, token_ids)
    places = top_candidates(logits, token_ids, _num_considered(rows, logits.shape[1]))
    best = token_ids.gather(1, places)
    return _choose(logits.gather(1, places), best, gumbel(rows.seeds, rows.positions, best), rows)


def _num_considered(rows: SamplingRows, num_tokens: int) -> int:
    """How many of a row's most likely tokens can be chosen at all."""
    return num_tokens if rows.max_top_k is None else min(rows.max_top_k, num_tokens)


def _choose(
    logits: torch.Tensor,  # [R, C] float32, most likely first
    token_ids: torch.Tensor,  # [R, C] int64
    noise: torch.Tensor,  # [R, C] float64
    rows: SamplingRows,
) -> torch.Tensor:  # [R] int64
    scores = noise.add_(filter_logits(logits, rows))
    return token_ids.gather(1, scores.argmax(dim=-1, keepdim=True)).squeeze(1)
