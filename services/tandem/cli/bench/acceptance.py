"""How much of what was drafted the target accepted."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median

from tandem.cli.bench.stream import Stream


@dataclass(frozen=True)
class Acceptance:
    """Acceptance lengths: output tokens a verify round, the target's own included."""

    temperature: float
    length: float  # over all rounds of all prompts
    prompt_lengths: tuple[float, ...]  # of each prompt by itself
    accepted_shares: tuple[float, ...]  # [K] of the rounds that judged such a draft, those that accepted it
    num_rounds: int
    num_undrafted_rounds: int  # drafts had been of use, and none came
    num_short_texts: int  # ended with their first token: no round, so they count nowhere above

    @property
    def mean_prompt_length(self) -> float:
        """Every prompt counts alike, however many rounds it took."""
        return mean(self.prompt_lengths)

    @property
    def median_prompt_length(self) -> float:
        """The prompt in the middle."""
        return median(self.prompt_lengths)

    @property
    def min_prompt_length(self) -> float:
        """The prompt that was hardest to draft for."""
        return min(self.prompt_lengths)


def acceptance(streams: Sequence[Stream], temperature: float, k: int, max_tokens: int) -> Acceptance | None:
    """What drafting did for texts; None where nothing needed a round.

    Args:
        streams: one text a prompt.
        temperature: they were written at.
        k: draft tokens that were wanted a round.
        max_tokens: at which they were cut, which makes a last round's drafts useless.
    """
    drafted = [stream for stream in streams if stream.rounds]
    rounds = [arrival for stream in drafted for arrival in stream.rounds]
    if not rounds:
        return None
    return Acceptance(
        temperature=temperature,
        length=1 + sum(arrival.num_accepted for arrival in rounds) / len(rounds),
        prompt_lengths=tuple(
            1 + sum(arrival.num_accepted for arrival in stream.rounds) / len(stream.rounds) for stream in drafted
        ),
        accepted_shares=tuple(
            sum(arrival.num_accepted > position for arrival in rounds)
            / max(1, sum(arrival.num_drafts > position for arrival in rounds))
            for position in range(k)
        ),
        num_rounds=len(rounds),
        num_undrafted_rounds=sum(_num_undrafted(stream, max_tokens) for stream in drafted),
        num_short_texts=len(streams) - len(drafted),
    )


def _num_undrafted(stream: Stream, max_tokens: int) -> int:
    """Rounds with room for more than the target's own token, and yet without drafts."""
    count, num_tokens = 0, stream.arrivals[0].num_tokens
    for arrival in stream.rounds:
        count += arrival.num_drafts == 0 and max_tokens - num_tokens > 1
        num_tokens += arrival.num_tokens
    return count
