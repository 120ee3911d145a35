"""How often drafts were right, by their position: of one sequence, or of all that a drafter drafted for."""

from collections.abc import Sequence
from dataclasses import dataclass, field

FIRST_GUESS = 0.7  # of a position that nothing is known of
FIRST_GUESS_WEIGHT = 2.0  # rounds


@dataclass
class Acceptance:
    """Evidence that fades: after `memory` rounds a little more than a third of it is left.

    The chance of a position is that of its draft being right once all before it were. What speaks of one sequence is
    mixed with what is known of all, so that a sequence starts as its drafter's average and returns to it when it has
    not been drafted for in a while.
    """

    memory: float  # rounds
    _num_right: list[float] = field(default_factory=list)  # by position
    _num_judged: list[float] = field(default_factory=list)
    _round: int = 0  # as of which the numbers above are

    def record(self, num_right: int, has_failed: bool, round_number: int) -> None:
        """Adds what a round showed.

        Args:
            num_right: drafts that were right, from the first on.
            has_failed: whether the draft after them was wrong or missing.
            round_number: never falls.
        """
        left, num_judged = self._left(round_number), num_right + has_failed
        self._round = round_number
        missing = [0.0] * (num_judged - len(self._num_judged))
        self._num_right = [left * number for number in self._num_right] + missing
        self._num_judged = [left * number for number in self._num_judged] + missing
        for position in range(num_judged):
            self._num_judged[position] += 1
            self._num_right[position] += position < num_right

    def chances(self, expected: Sequence[float], weight: float, round_number: int) -> list[float]:
        """The chance of each position.

        Args:
            expected: the chance of each, before anything was seen.
            weight: of that, in rounds.
            round_number: now.
        """
        left, num_known = self._left(round_number), len(self._num_judged)
        return [
            (left * self._num_right[position] + weight * chance) / (left * self._num_judged[position] + weight)
            if position < num_known
            else chance
            for position, chance in enumerate(expected)
        ]

    def _left(self, round_number: int) -> float:
        return float((1 - 1 / self.memory) ** (round_number - self._round))
