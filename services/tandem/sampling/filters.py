"""Temperature, top-k, top-p, min-p: in this order, on a row's best candidates only.

Top-p and min-p compare probabilities after temperature, among the tokens that top-k left, as peers do.
"""

import torch

from tandem.sampling.rows import SamplingRows

# Masses are compared as multiples of 2^-44 of the best token's. Integers add up to the same sum in any order, so a
# cut depends neither on how a device adds nor on how wide the batch is; the masses of 2^18 tokens fit.
MASS_UNIT = float(1 << 44)


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
    scaled.masked_fill_(ranks >= rows.top_k.unsqueeze(-1), -torch.inf)
    weights = scaled.exp()
    masses = (weights * MASS_UNIT).long()
    cumulative = masses.cumsum(dim=-1)
    # A token is surplus if the tokens before it hold the mass already.
    is_removed = cumulative - masses >= cumulative[:, -1:] * rows.top_p.unsqueeze(-1)
    is_removed |= weights < rows.min_p.unsqueeze(-1)
    return scaled.masked_fill_(is_removed, -torch.inf)
