"""What one forward pass does, and what came of it."""

from collections.abc import Sequence as Tokens
from dataclasses import dataclass

from tandem.core.sequence import Sequence


@dataclass(frozen=True)
class ScheduledSequence:
    """The rows of one sequence in a step: committed tokens that have no KV yet, then draft tokens.

    Drafts follow only the last committed token. A prompt that is longer than a step is computed in chunks; only the
    chunk that reaches the last committed token chooses a token.
    """

    sequence: Sequence
    slot: int
    num_committed_rows: int
    draft_token_ids: Tokens[int] = ()
    is_entering: bool = False  # took its slot for this step

    def __post_init__(self) -> None:
        """A contradiction is a defect of ours."""
        assert 0 < self.num_committed_rows <= self.sequence.num_uncomputed_tokens
        assert self.is_chosen_from or not self.draft_token_ids

    @property
    def start(self) -> int:
        """Position of the first row."""
        return self.sequence.num_computed_tokens

    @property
    def num_rows(self) -> int:
        """Rows in the forward pass."""
        return self.num_committed_rows + len(self.draft_token_ids)

    @property
    def is_chosen_from(self) -> bool:
        """Whether the last committed token is among the rows, so that the next one can be chosen."""
        return self.num_committed_rows == self.sequence.num_uncomputed_tokens

    @property
    def token_ids(self) -> list[int]:
        """The token of each row."""
        return [*self.sequence.committed[self.start : self.start + self.num_committed_rows], *self.draft_token_ids]


@dataclass(frozen=True)
class TokenLogprob:
    """Log-probabilities at one place, under the target's distribution at T = 1 before filters."""

    chosen: float
    top: tuple[tuple[int, float], ...]  # (token id, log-probability), most likely first


@dataclass(frozen=True)
class Chosen:
    """What a step gave one sequence: the target's own tokens, the first `num_accepted` of which were drafted."""

    token_ids: list[int]
    num_accepted: int
    logprobs: list[TokenLogprob]  # one a token when asked for, else none
