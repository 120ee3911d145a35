"""A `MtpDrafter` whose drafts stay on the device."""

from collections.abc import Sequence

import torch

from tandem.engine.mtp_drafter import MtpDrafter


class EnqueuedDrafter:
    """Puts what a `MtpDrafter` proposes where the verifier reads it. It looks at the inputs on the host, and waits."""

    def __init__(
        self,
        drafter: MtpDrafter,
        drafts: torch.Tensor,  # [num_slots, max_draft_tokens] int64
    ) -> None:
        """Takes the drafter, and where its drafts belong."""
        self._drafter = drafter
        self._drafts = drafts

    def draft(self, slots: Sequence[int], num_tokens: int) -> None:
        """Writes `num_tokens` drafts of each slot; one whose inputs are unusable is left as it was."""
        proposed = self._drafter.propose(slots, num_tokens)
        for slot, token_ids in zip(slots, proposed, strict=True):
            if token_ids:
                self._drafts[slot, :num_tokens] = torch.tensor(token_ids, dtype=torch.int64, device=self._drafts.device)
