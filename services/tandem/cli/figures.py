"""The figures of one answer, as its reader measured them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figures:
    """What one generation took, and what drafting did for it."""

    num_tokens: int
    num_rounds: int
    num_draft_tokens: int
    num_accepted_tokens: int
    seconds: float  # from the request to its end
    first_token_seconds: float  # from the request to its first text

    @property
    def acceptance_length(self) -> float | None:
        """Tokens a verify round gave, the target's own included; None where no round was needed."""
        return 1 + self.num_accepted_tokens / self.num_rounds if self.num_rounds else None

    @property
    def tokens_per_second(self) -> float:
        """Over the whole time, the wait for the first token included."""
        return self.num_tokens / self.seconds if self.seconds > 0 else 0.0

    def line(self) -> str:
        """All of it, for people."""
        length = self.acceptance_length
        return (
            f"rounds {self.num_rounds}, drafted {self.num_draft_tokens}, accepted {self.num_accepted_tokens}, "
            f"acceptance length {'-' if length is None else f'{length:.2f}'}, tokens {self.num_tokens}, "
            f"{self.tokens_per_second:.1f} tokens/s, first token after {self.first_token_seconds * 1000:.0f} ms"
        )
