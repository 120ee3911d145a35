"""Temperature, top-k, top-p, min-p: in this order, on a row's best candidates only.

Top-p and min-p compare probabilities after temperature, among the tokens that top-k left, as peers do.
"""

import torch

from tandem.sampling.rows import SamplingRows

# Masses are compared as multiples of 2^-40 of the best token's. Integers add up to the same sum in any order, so a
# cut never depends on how a device adds or how wide the batch is; 2^22 tokens fit into 63 bits.
_MASS_UNIT = float(1 << 40)


def filter_logits(
    logits: torch.Tensor,  # [R, C] float32, candidates of a row, most likely first
    rows: SamplingRows,
) -> torch.Tensor:  # [R, C] float64
    """Logits over temperature, relative to the row's best; -inf where a filter removed the candidate.

    Top-k keeps the first k. Top-p keeps the smallest set whose mass reaches p. Min-p keeps tokens at least `min_p`
    times as likely as the best. The best token always stays.
    """
    wide = logits.double()
    scaled = (wide - wide[:, :1]) / rows.temperature.unsqueeze(-1)
    ranks = torch.arange(logits.shape[1], device=logits.device)
    is_kept = ranks < rows.top_k.unsqueeze(-1)
    weights = scaled.exp() * is_kept
    is_kept &= weights >= rows.min_p.unsqueeze(-1)
    masses = weights.mul_(_MASS_UNIT).round_().long()
    cumulative = masses.cumsum(dim=-1)
    top_p = rows.top_p.unsqueeze(-1)
    # A token is needed if the mass before it falls short of p. At p = 1 nothing is cut, however small.
    is_kept &= ((cumulative - masses) < cumulative[:, -1:] * top_p) | (top_p >= 1.0)
    return scaled.masked_fill_(~is_kept, -torch.inf)
