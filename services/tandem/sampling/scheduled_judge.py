"""A judge that knows no tokens: it accepts as many drafts as a schedule says. For measurements with random weights."""

import torch

_FRACTION_BITS = 32


class ScheduledJudge:
    """Round r accepts floor((r + 1) * m) - floor(r * m) drafts of each sequence: m = mean - 1 on average.

    The rounds are counted on the device, in place, so that a captured graph counts on each time it is replayed.
    Fixed-point numbers keep the schedule exact however many rounds there are.
    """

    def __init__(self, acceptance_length: float, device: torch.device | str) -> None:
        """Starts at round 0.

        Args:
            acceptance_length: tokens a round, the target's own included; at least 1.
            device: of the tensors to be judged.
        """
        assert acceptance_length >= 1.0
        self._accepted_a_round = round((acceptance_length - 1.0) * (1 << _FRACTION_BITS))  # fixed point
        self._total = torch.zeros((), dtype=torch.int64, device=device)  # r * m, fixed point

    def __call__(
        self,
        target_token_ids: torch.Tensor,  # [S, K + 1] int64
        draft_token_ids: torch.Tensor,  # [S, K] int64
        num_drafts: torch.Tensor,  # [S] int64
    ) -> torch.Tensor:  # [S] int64, each 0..num_drafts
        """In the place of `judge`; the tokens count for nothing."""
        before = self._total >> _FRACTION_BITS
        self._total.add_(self._accepted_a_round)
        scheduled = (self._total >> _FRACTION_BITS) - before
        return torch.minimum(scheduled, num_drafts).clamp_(min=0)
