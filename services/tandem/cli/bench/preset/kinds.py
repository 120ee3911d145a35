"""Which texts are measured."""

from collections.abc import Sequence
from dataclasses import dataclass

from tandem.cli.bench.preset.config import PresetConfig


@dataclass(frozen=True)
class Kind:
    """So many texts at a time, after prompts of one length."""

    batch: int
    prompt_tokens: int
    max_tokens: int

    @property
    def num_tokens(self) -> int:
        """Of one text with its prompt."""
        return self.prompt_tokens + self.max_tokens


def kinds_of(config: PresetConfig) -> list[Kind]:
    """Every batch after the first length of prompts, and batch 1 after the others."""
    first, *others = config.prompt_list
    of_first = [Kind(batch, first, config.max_tokens) for batch in config.batch_list]
    return of_first + [Kind(1, length, config.max_tokens) for length in others]


def longest_context(kinds: Sequence[Kind]) -> int:
    """Tokens of the longest text with its prompt."""
    return max(kind.num_tokens for kind in kinds)
