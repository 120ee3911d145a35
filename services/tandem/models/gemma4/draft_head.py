"""From a drafter's rows to scores of tokens."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from tandem.models.gemma4.linear import Linear
from tandem.models.gemma4.parameters import Destinations


@dataclass(frozen=True)
class DraftScores:
    """Logits without softcap, of the whole vocabulary or of each row's candidates."""

    logits: torch.Tensor  # [B, C]
    token_ids: torch.Tensor | None  # [B, C] int64, of which token each logit is; None: of 0..C-1


class DraftHead(Protocol):
    """The last layer of a drafter."""

    def destinations(self, prefix: str) -> Destinations:
        """Every tensor that a checkpoint must have for it; `prefix` is that of the decoder's tensors."""
        ...

    def arrange(self, folder: Path) -> None:
        """Called once all destinations are filled.

        Raises:
            CheckpointError: what was read from `folder` contradicts itself.
        """
        ...

    def __call__(self, rows: torch.Tensor) -> DraftScores:  # [B, hidden_size], normed
        """Scores for each row."""
        ...


class DenseHead:
    """Scores every token."""

    def __init__(self, hidden_size: int, vocab_size: int, dtype: torch.dtype, device: torch.device) -> None:
        """Allocates."""
        self._product = Linear(hidden_size, vocab_size, dtype, device)

    def destinations(self, prefix: str) -> Destinations:
        """The drafter's own token table, which is its head and is never looked up."""
        yield f"{prefix}embed_tokens.weight", self._product.destination()

    def arrange(self, folder: Path) -> None:
        """Nothing is left to do."""

    def __call__(self, rows: torch.Tensor) -> DraftScores:  # [B, hidden_size], normed
        """One product over the whole vocabulary."""
        return DraftScores(self._product(rows), None)
