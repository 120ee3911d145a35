"""Drafts that need not pass through the host."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch


@runtime_checkable
class AheadSource(Protocol):
    """A `DraftSource` whose drafts are ordered by streams alone.

    The drafts of a round that nobody drafted in time may be anything, and may change while they are read: whoever
    verifies them copies them once, and looks only at the copy.
    """

    @property
    def drafts(self) -> torch.Tensor:  # [num_slots, max_draft_tokens] int64, on the device
        """Where the drafts of each slot stand."""
        ...

    def draft_ahead(self, slots: Sequence[int], num_tokens: int) -> int:
        """Enqueues a round of drafts behind what is on the current stream, and what follows on it behind the drafts.

        Called by the engine's thread. Returns at once how many tokens each slot will be given; 0: nobody can draft now.
        """
        ...
