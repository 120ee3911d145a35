"""Drafts that never pass through the host."""

from collections.abc import Sequence
from typing import Protocol

import torch


class AheadSource(Protocol):
    """A `DraftSource` whose drafts need not pass through the host: they are ordered by streams alone.

    The drafts of a round that nobody drafted in time may be anything, and may change while they are read: whoever
    verifies them copies them once, and looks only at the copy.
    """

    @property
    def drafts(self) -> torch.Tensor:  # [num_slots, max_draft_tokens] int64
        """On the device; a row for each slot."""
        ...

    def draft_ahead(self, slots: Sequence[int], num_tokens: int) -> int:
        """Enqueues a round of drafts behind what is on the current stream, and what follows on it behind the drafts.

        Returns at once how many tokens each slot will be given; 0: nobody can draft now. Called by the engine's thread,
        whose current stream is the engine's.
        """
        ...
