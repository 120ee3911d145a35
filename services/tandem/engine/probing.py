"""Rounds in which more or fewer drafts are tried than are believed to pay.

What was given up once would stay given up otherwise: a drafter that recovers, a batch size that has become cheap. A
small share of the time goes into it, so what is believed to cost much is tried rarely.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tandem.engine.draft_allocation import Allocation, Offer
from tandem.engine.round_cost import size_class

SHARE = 0.003  # of the time, for each of the two kinds of probes that go on for ever
PROMISING = 0.8  # of what is best
LEAST_PRICE = 0.02  # of a round's time: what is believed to cost nothing is not tried all the time


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


@dataclass
class Firsts:
    """Rounds of a batch size that is new: each promising number of drafts once, which costs little.

    Where all of them have been measured, none is given up, or kept, for what was only a guess.
    """

    _tried: set[tuple[int, int, int]] = field(default_factory=set)  # batch size, drafter, drafts

    def take(
        self, num_sequences: int, choices: Mapping[tuple[int, int], Allocation], best: Allocation
    ) -> tuple[int, int] | None:
        """The most promising of `choices`, by drafter and number of drafts, that was never tried."""
        size, least = size_class(num_sequences), PROMISING * best.tokens_per_second
        left = {
            choice: found.tokens_per_second
            for choice, found in choices.items()
            if found.tokens_per_second > least and (size, *choice) not in self._tried
        }
        if not left:
            return None
        drafter, count = max(left, key=lambda choice: left[choice])
        self._tried.add((size, drafter, count))
        return drafter, count


@dataclass
class Purses:
    """The last kind: every choice saves for itself, so that a dear one holds up no cheap one.

    Half of the time is for all of them alike. The other half is the more a choice's the less it costs: what is believed
    to be nearly as good as the best is tried most, since knowing matters most there.
    """

    _saved: dict[tuple[int, int], float] = field(default_factory=dict)  # seconds, by drafter and number of drafts
    _to_share: float = 0.0  # seconds, that no choice has yet

    def save(self, round_seconds: float) -> None:
        """A round has passed."""
        self._to_share += SHARE * round_seconds

    def charge(self, seconds: float) -> None:
        """Time was lost that nobody had expected."""
        self._to_share -= seconds

    def take(self, prices: Mapping[tuple[int, int], float]) -> tuple[int, int] | None:
        """The choice that could pay its price, in seconds, most times over, if any can; it begins to save anew."""
        if not prices:
            return None
        inverses = sum(1 / price for price in prices.values())
        for choice, price in prices.items():
            share = (1 / len(prices) + 1 / price / inverses) / 2
            self._saved[choice] = self._saved.get(choice, 0.0) + share * self._to_share
        self._to_share = 0.0
        found = max(prices, key=lambda choice: self._saved[choice] / prices[choice])
        if self._saved[found] < prices[found]:
            return None
        self._saved[found] = 0.0
        return found


def lost_seconds(best: Allocation, other: Allocation) -> float:
    """What a round costs beyond what its tokens would have taken at the best known rate."""
    return max(0.0, other.seconds - other.tokens / best.tokens_per_second)


def expected_tokens(offer: Offer, num_drafts: int) -> float:
    """What the first so many drafts give."""
    return float(sum(offer.gains[:num_drafts]))
