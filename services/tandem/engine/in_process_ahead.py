"""The drafter inside the verifier, without the host between: what the split into two processes is measured against."""

from collections.abc import Sequence

import torch

from tandem.engine.device_drafter import DeviceDrafter
from tandem.engine.draft_source import DrafterInfo, Drafts, Wanted


class InProcessAhead:
    """A `DraftSource` on the engine's own stream, and an `AheadSource`."""

    def __init__(self, drafter: DeviceDrafter, info: DrafterInfo) -> None:
        """Drafts at most `info.num_speculative_tokens` a round."""
        self._drafter, self._info = drafter, info
        self._wanted: Sequence[Wanted] = ()

    @property
    def info(self) -> DrafterInfo:
        """The drafter, which never goes away."""
        return self._info

    @property
    def drafts(self) -> torch.Tensor:  # [num_slots, max_draft_tokens] int64
        """Where it writes."""
        return self._drafter.drafts

    def draft_ahead(self, slots: Sequence[int], num_tokens: int) -> int:
        """Enqueues a round."""
        count = min(num_tokens, self._info.num_speculative_tokens)
        self._drafter.draft(slots, count)
        return count

    def begin(self, wanted: Sequence[Wanted]) -> bool:
        """Enqueues a round, for a host that will wait for it."""
        self._wanted = wanted
        self.draft_ahead([one.slot for one in wanted], max(one.num_tokens for one in wanted))
        return True

    def collect(self) -> Drafts:
        """Waits for it."""
        count = min(max(one.num_tokens for one in self._wanted), self._info.num_speculative_tokens)
        rows: list[list[int]] = self.drafts[[one.slot for one in self._wanted], :count].tolist()
        return Drafts(rows)

    def close(self) -> None:
        """Nothing to let go of."""
