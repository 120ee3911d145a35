"""How often drafts are right: of one sequence, or of all that a drafter drafted for; and what that makes of a round.

A text has stretches that are easy to draft and others that are not. Where some drafts in a row were right, the next one
probably is, too, whether those before it came in the same round or in earlier ones. So the chance of a draft is learnt
by how many before it were right in a row. That tells what rounds of *any* number of drafts give, which the first drafts
of longer rounds do not: many short rounds lie in an easy stretch that few long ones pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import mul

from tandem.engine.draft_policy import Judged

LONGEST_RUN = 8  # drafts right in a row; more say no more
FIRST_GUESS = 0.7  # the chance of a draft, where nothing is known
SUREST = 0.99  # a chance at most


@dataclass
class Run:
    """Drafts of one sequence that were right in a row, up to where its text is now."""

    length: int = 0
    _end: int = 0  # of the text, in tokens of the sequence

    def start(self, judged: Judged) -> int:
        """How many were right before those that are judged now, which then count as well."""
        before = self.length if judged.start == self._end else 0  # else others wrote what is between
        self._end = judged.start + judged.num_written
        is_known_to_end = judged.num_written <= judged.num_right + 1
        self.length = before + judged.num_right if is_known_to_end and not judged.has_failed else 0
        return before


@dataclass
class Acceptance:
    """Evidence that fades: after `memory` rounds a little more than a third of it is left.

    What speaks of one sequence is mixed with what is known of all, so that a sequence starts as its drafter's average
    and returns to it when it has not been drafted for in a while.
    """

    memory: float  # rounds
    _num_right: list[float] = field(default_factory=lambda: [0.0] * (LONGEST_RUN + 1))  # by drafts right before
    _num_judged: list[float] = field(default_factory=lambda: [0.0] * (LONGEST_RUN + 1))
    _round: int = 0  # as of which the numbers above are

    def record(self, run: int, judged: Judged, round_number: int) -> None:
        """Adds what a round showed.

        Args:
            run: drafts that were right in a row before it.
            judged: what it showed.
            round_number: never falls.
        """
        left = self._left(round_number)
        if left < 1:
            self._num_right = [left * number for number in self._num_right]
            self._num_judged = [left * number for number in self._num_judged]
            self._round = round_number
        for draft in range(judged.num_right + judged.has_failed):
            place = min(run + draft, LONGEST_RUN)
            self._num_judged[place] += 1
            self._num_right[place] += draft < judged.num_right

    def chances(self, expected: Sequence[float] | None, weight: float, round_number: int) -> list[float]:
        """The chance of a draft, by how many were right in a row before it, up to `LONGEST_RUN`.

        Args:
            expected: each, before anything was seen; None: as with one less.
            weight: of that, in drafts.
            round_number: now.
        """
        left, chance, found = self._left(round_number), FIRST_GUESS, []
        for place, (num_right, num_judged) in enumerate(zip(self._num_right, self._num_judged, strict=True)):
            chance = expected[place] if expected else chance
            chance = (left * num_right + weight * chance) / (left * num_judged + weight)
            found.append(chance)
        return found

    def _left(self, round_number: int) -> float:
        return float((1 - 1 / self.memory) ** (round_number - self._round))


def gains(chances: Sequence[float], run: int, max_drafts: int) -> list[float]:
    """The tokens that each draft adds to a round, if all rounds have as many; never more than the draft before it adds.

    A run of r right drafts, then a wrong one, takes floor(r / k) + 1 rounds of k drafts, each of which gives one token
    more than drafts are right. Means of both over all runs give the tokens of a round.

    Args:
        chances: as `Acceptance.chances` gives them.
        run: drafts that were right in a row so far. From `LONGEST_RUN` on, what is left of this run counts; before,
            all runs do, as following each one's every turn changes the number of drafts more often than it is worth.
        max_drafts: of a round.
    """
    last = min(chances[-1], SUREST)
    told_apart = () if run >= LONGEST_RUN else chances[:-1]
    lasting = list(accumulate(told_apart, mul, initial=1.0))  # chance of a run to reach 0, 1, 2 ... drafts more
    end, tail = len(lasting) - 1, lasting[-1]  # from there on, it falls by `last` with every draft
    num_right = sum(lasting) - 1 + tail * last / (1 - last)
    found, before, gain = [], 1.0, 1.0
    for count in range(1, max_drafts + 1):
        num_rounds = sum(lasting[::count]) + tail * last ** (count - end % count) / (1 - last**count)
        gain = min(gain, max(0.0, 1 + num_right / num_rounds - before))
        before += gain
        found.append(gain)
    return found
