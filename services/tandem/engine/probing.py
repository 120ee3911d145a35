"""Rounds in which more or fewer drafts are tried than are believed to pay.

What was given up once would stay given up otherwise: a drafter that recovers, a batch size that has become cheap. A
small share of the time goes into it, so what is believed to cost much is tried rarely.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import mul

from tandem.engine.draft_allocation import Allocation, Offer

SHARE = 0.005  # of the time, for each of the two kinds of probes


@dataclass
class Turns:
    """One kind of probe: each of its choices in turn, when the time has been saved up for it."""

    _next: int = 0
    _saved: float = 0.0  # seconds
    _price: float = 0.0  # of the next choice when it was last looked at

    @property
    def is_due(self) -> bool:
        """Whether the next choice is worth looking at."""
        return self._saved >= self._price

    def save(self, round_seconds: float) -> None:
        """A round has passed."""
        self._saved += SHARE * round_seconds

    def charge(self, seconds: float) -> None:
        """Time was lost that nobody had expected."""
        self._saved -= seconds

    def peek(self, num_choices: int) -> int:
        """Whose turn it is."""
        return self._next % num_choices

    def skip(self) -> None:
        """There is nothing to find out from this one."""
        self._next, self._price = self._next + 1, 0.0

    def take(self, lost_seconds: float) -> bool:
        """Whether the time suffices; the next one then has its turn later."""
        if self._saved < lost_seconds:
            self._price = lost_seconds
            return False
        self._saved = 0.0
        self.skip()
        return True


def lost_seconds(best: Allocation, offers: Sequence[Offer], num_drafts: Sequence[int], seconds: float) -> float:
    """What a round costs beyond what its tokens would have taken at the best known rate."""
    tokens = len(offers) + sum(expected_tokens(one, count) for one, count in zip(offers, num_drafts, strict=True))
    return max(0.0, seconds - tokens / best.tokens_per_second)


def expected_tokens(offer: Offer, num_drafts: int) -> float:
    """Drafts that will be right, of the first so many."""
    return float(sum(accumulate(offer.chances[:num_drafts], mul)))
