"""Which texts are asked for, and of whom."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from tandem.cli.bench.preset.config import FP8, PresetConfig
from tandem.verifier.config import NO_DRAFTER


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

    @property
    def name(self) -> str:
        """For people."""
        return f"batch {self.batch}, prompt {self.prompt_tokens}"


@dataclass(frozen=True)
class Way:
    """How texts are made."""

    drafter: str  # where drafts are made, as for `tandem up`
    weights: str  # as the verifier's setting
    adaptive_k: bool

    @property
    def name(self) -> str:
        """For people."""
        parts = [self.drafter, FP8 if self.weights == FP8 else "", "adaptive K" if self.adaptive_k else ""]
        return ", ".join(filter(None, parts))


def kinds_of(config: PresetConfig) -> list[Kind]:
    """Every batch after the first length of prompts, and batch 1 after the others."""
    first, *others = config.prompt_list
    of_first = [Kind(batch, first, config.max_tokens) for batch in config.batch_list]
    return of_first + [Kind(1, length, config.max_tokens) for length in others]


def ways_of(config: PresetConfig) -> list[Way]:
    """Every combination that the settings list; without drafts, K is none's."""
    combined = product(config.weights_list, config.drafter_list, config.adaptive_list)
    ways = [Way(drafter, weights, adaptive and drafter != NO_DRAFTER) for weights, drafter, adaptive in combined]
    return list(dict.fromkeys(ways))


def longest_context(kinds: Sequence[Kind]) -> int:
    """Tokens of the longest text with its prompt."""
    return max(kind.num_tokens for kind in kinds)
