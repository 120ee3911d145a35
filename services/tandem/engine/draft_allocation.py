"""How many drafts of each sequence are worth their time, when all share one step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Offer:
    """What a drafter could do for one sequence."""

    drafter: int
    gains: Sequence[float]  # tokens that each draft adds to a round, never rising; as many as may be asked for


@dataclass(frozen=True)
class Allocation:
    """Drafts to verify, one number an offer, and what to expect of the round."""

    num_drafts: list[int]
    tokens: float
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """What a good allocation makes large."""
        return self.tokens / self.seconds


def allocate(
    offers: Sequence[Offer],
    max_rows: int,
    step_seconds: Callable[[int], float],  # of so many rows
    draft_seconds: Callable[[int, int, int], float],  # of a drafter for so many sequences, so many drafts each
) -> Allocation:
    """The drafts that make expected tokens over expected seconds largest.

    A row more costs everybody the same, so rows are added in the order of the tokens they give, which for one sequence
    fall from draft to draft; where to stop is where tokens over seconds was best. A drafter makes as many
    steps as the sequence with most drafts needs, so the same is tried with fewer steps for as long as that helps.
    """
    rows = sorted(
        (
            (gain, number, position)
            for number, offer in enumerate(offers)
            for position, gain in enumerate(offer.gains, start=1)
        ),
        key=lambda row: -row[0],
    )
    best = none = Allocation([0] * len(offers), float(len(offers)), step_seconds(len(offers)))
    limit = max((len(offer.gains) for offer in offers), default=0)
    while limit > 0:
        found = _add_rows(offers, rows, limit, max_rows, none.seconds, step_seconds, draft_seconds)
        if found.tokens_per_second <= best.tokens_per_second:
            break
        best, limit = found, max(found.num_drafts) - 1
    return best


def _add_rows(
    offers: Sequence[Offer],
    rows: Sequence[tuple[float, int, int]],  # gain, offer, draft counted from 1; best first
    limit: int,
    max_rows: int,
    seconds: float,
    step_seconds: Callable[[int], float],
    draft_seconds: Callable[[int, int, int], float],
) -> Allocation:
    """The best beginning of `rows`, those beyond `limit` drafts left out."""
    tokens, num_rows = float(len(offers)), len(offers)
    num_sequences: dict[int, int] = {}  # by drafter
    num_steps: dict[int, int] = {}
    drafting: dict[int, float] = {}
    total_drafting = 0.0
    taken: list[int] = []
    best_tokens, best_seconds, num_taken = tokens, seconds, 0
    for gain, number, position in rows:
        if position > limit:
            continue
        if num_rows == max_rows:
            break
        tokens += gain
        num_rows += 1
        taken.append(number)
        drafter = offers[number].drafter
        if position == 1 or position > num_steps[drafter]:
            num_sequences[drafter] = num_sequences.get(drafter, 0) + (position == 1)
            num_steps[drafter] = max(position, num_steps.get(drafter, 0))
            total_drafting -= drafting.get(drafter, 0.0)
            drafting[drafter] = draft_seconds(drafter, num_sequences[drafter], num_steps[drafter])
            total_drafting += drafting[drafter]
        seconds = step_seconds(num_rows) + total_drafting
        if tokens * best_seconds > best_tokens * seconds:
            best_tokens, best_seconds, num_taken = tokens, seconds, len(taken)
    num_drafts = [0] * len(offers)
    for number in taken[:num_taken]:
        num_drafts[number] += 1
    return Allocation(num_drafts, best_tokens, best_seconds)
