"""What confines the tokens of one sequence."""

from collections.abc import Sequence as Tokens
from typing import Protocol


class TokenGrammar(Protocol):
    """A grammar and how far into it a sequence's output has come, such as a `sampling.grammar.Grammar`.

    It knows nothing of stop tokens: they end the sequence before they reach it.
    """

    @property
    def is_complete(self) -> bool:
        """Whether the text matches, and nothing can follow."""
        ...

    def accept(self, token_id: int) -> bool:
        """Takes the next token of the output; False: no text with it can match."""
        ...

    def num_possible(self, token_ids: Tokens[int]) -> int:
        """How many of these tokens, from the first on, could follow. Changes nothing."""
        ...
