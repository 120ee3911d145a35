"""The texts of all slots, within a bound."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from tandem.drafter.ngram_index import NgramIndex


@dataclass
class _Text:
    """The sequence in a slot."""

    sequence: int
    index: NgramIndex = field(default_factory=NgramIndex)


class LookupTable:
    """One index a slot. When there are too many tokens, the slots that have waited longest are forgotten: most likely
    their sequences have ended, and if not, they are without drafts from then on."""

    def __init__(self, max_tokens: int) -> None:
        """Starts empty.

        Args:
            max_tokens: of all slots together.
        """
        self._max_tokens = max_tokens
        self._num_tokens = 0
        self._texts: OrderedDict[int, _Text] = OrderedDict()  # by slot, the last extended one last

    def __len__(self) -> int:
        """Tokens that are known."""
        return self._num_tokens

    def extend(self, slot: int, sequence: int, start: int, token_ids: Iterable[int]) -> None:
        """Appends tokens to the sequence in a slot. What does not continue what is known is not kept.

        Args:
            slot: where the sequence is.
            sequence: its number.
            start: tokens of it that came before; 0 for a new text.
            token_ids: those that follow.
        """
        text = self._texts.get(slot)
        if start == 0 or text is None or (text.sequence, len(text.index)) != (sequence, start):
            self._forget(slot)
            if start:
                return
            text = self._texts[slot] = _Text(sequence)
        self._num_tokens -= len(text.index)
        text.index.extend(token_ids)
        self._num_tokens += len(text.index)
        self._texts.move_to_end(slot)
        while self._num_tokens > self._max_tokens:
            self._forget(next(iter(self._texts)))

    def draft(self, slot: int, num_tokens: int) -> list[int]:
        """What may come next in a slot; empty where nothing is known."""
        text = self._texts.get(slot)
        return text.index.draft(num_tokens) if text else []

    def _forget(self, slot: int) -> None:
        text = self._texts.pop(slot, None)
        if text:
            self._num_tokens -= len(text.index)
