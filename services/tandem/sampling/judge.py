"""Which drafts stand."""

from collections.abc import Callable

import torch

# (target's tokens [S, K + 1], drafts [S, K], number of drafts [S]) -> drafts accepted [S]
Judge = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def judge(
    target_token_ids: torch.Tensor,  # [S, K + 1] int64, the target's own token at each row
    draft_token_ids: torch.Tensor,  # [S, K] int64, anything at all beyond num_drafts
    num_drafts: torch.Tensor,  # [S] int64
) -> torch.Tensor:  # [S] int64, each 0..num_drafts
    """Counts the drafts accepted: those before the first that differs from the target's own token.

    The tokens a sequence emits are then `target_token_ids[: num_accepted + 1]`, whatever the drafts were.
    """
    max_drafts = draft_token_ids.shape[1]
    is_drafted = torch.arange(max_drafts, device=draft_token_ids.device) < num_drafts.unsqueeze(-1)
    is_equal = draft_token_ids == target_token_ids[:, :max_drafts]
    return (is_equal & is_drafted).long().cumprod(dim=-1).sum(dim=-1)
