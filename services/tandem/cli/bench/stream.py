"""One generated text, as its reader saw it arrive."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Arrival:
    """The tokens of one message."""

    at: float  # seconds on the reader's clock
    num_tokens: int
    num_drafts: int = 0  # draft tokens that the round judged
    num_accepted: int = 0  # how many of them stayed


@dataclass(frozen=True)
class Stream:
    """A text's tokens. The first arrival is the prefill's, every further one that of a round."""

    started_at: float  # when it was asked for, on the same clock
    token_ids: tuple[int, ...]
    arrivals: tuple[Arrival, ...]

    def __post_init__(self) -> None:
        """Nothing without a token can be measured."""
        assert self.arrivals and len(self.token_ids) == sum(arrival.num_tokens for arrival in self.arrivals)

    @property
    def first_at(self) -> float:
        """When the first token arrived."""
        return self.arrivals[0].at

    @property
    def ended_at(self) -> float:
        """When the last token arrived."""
        return self.arrivals[-1].at

    @property
    def rounds(self) -> tuple[Arrival, ...]:
        """What came after the first token."""
        return self.arrivals[1:]

    @property
    def num_decoded(self) -> int:
        """Tokens after the first arrival."""
        return len(self.token_ids) - self.arrivals[0].num_tokens

    @property
    def sample(self) -> "Sample":
        """What is kept of it once the text does not matter any more."""
        return Sample(
            num_tokens=len(self.token_ids),
            num_rounds=len(self.rounds),
            first_token_seconds=self.first_at - self.started_at,
            seconds=self.ended_at - self.started_at,
        )


@dataclass(frozen=True)
class Sample:
    """The raw figures of one text."""

    num_tokens: int
    num_rounds: int
    first_token_seconds: float
    seconds: float
