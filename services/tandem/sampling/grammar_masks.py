"""Which tokens the rows of a step may choose."""

import os
from collections.abc import Sequence

import numpy as np
import torch
from llguidance import LLExecutor

from tandem.core.token_grammar import TokenGrammar
from tandem.sampling.grammar import Grammar
from tandem.sampling.vocabulary import BITS

MAX_THREADS = 4
ANYTHING = -1  # a word of a mask with all bits set


class GrammarMasks:
    """Masks the logits of rows whose sequences have a grammar."""

    def __init__(self, vocabulary_size: int, device: torch.device) -> None:
        """Prepares for logits of so many tokens on `device`."""
        self._num_words = -(-vocabulary_size // BITS)
        self._executor = LLExecutor(num_threads=min(MAX_THREADS, os.cpu_count() or 1))
        self._bits = 1 << torch.arange(8, dtype=torch.uint8, device=device)

    def apply(
        self,
        logits: torch.Tensor,  # [R, V] float32; left as it is
        sequences: Sequence[tuple[TokenGrammar | None, Sequence[int]]],
    ) -> torch.Tensor:  # [R, V] float32
        """The logits with -inf for every token that a row must not choose.

        Args:
            logits: the rows of one sequence after the other.
            sequences: the grammar of each, and its drafts. Row j of a sequence stands after its drafts d1..dj, and so
                does the grammar; a row after a draft that the grammar forbids may choose anything, for the judge
                throws it away.
        """
        if not any(grammar for grammar, _ in sequences):
            return logits
        masks = self._masks(sequences, logits.shape[0]).view(np.uint8)  # [R, 4 W]: what goes to the device, and no more
        is_allowed = torch.from_numpy(masks).to(logits.device).unsqueeze(-1) & self._bits  # [R, 4 W, 8]
        return logits.masked_fill(is_allowed.flatten(1)[:, : logits.shape[1]] == 0, -torch.inf)

    def _masks(
        self, sequences: Sequence[tuple[TokenGrammar | None, Sequence[int]]], num_rows: int
    ) -> np.ndarray:  # [R, W] int32
        masks = np.full((num_rows, self._num_words), ANYTHING, dtype=np.int32)
        confined: list[tuple[Grammar, slice, list[int]]] = []
        first = 0
        for grammar, draft_token_ids in sequences:
            rows = slice(first, first + len(draft_token_ids) + 1)
            first = rows.stop
            if grammar:
                assert isinstance(grammar, Grammar), "the engine is given no other"
                confined.append((grammar, rows, list(draft_token_ids)))
        # All matchers at once, each through its drafts and back; the library has another call for those without.
        drafted = [(grammar.matcher, rows.start, drafts) for grammar, rows, drafts in confined if drafts]
        undrafted = [(grammar.matcher, rows.start) for grammar, rows, drafts in confined if not drafts]
        where = masks.ctypes.data, masks.strides[0], num_rows
        if drafted:
            self._executor.unsafe_compute_mask_ptr_with_draft_token(drafted, *where)
        if undrafted:
            self._executor.unsafe_compute_mask_ptr(undrafted, *where)
        for grammar, rows, _ in confined:
            _finish(masks[rows], grammar)
        return masks


def _finish(
    masks: np.ndarray,  # [N, W] int32, the library's; changed in place
    grammar: Grammar,
) -> None:
    """Replaces the library's idea of special tokens by ours: none, but for stop tokens where the text may end."""
    vocabulary = grammar.vocabulary
    may_end = (masks & vocabulary.library_end).any(axis=1, keepdims=True)
    masks &= vocabulary.text
    masks |= np.where(may_end, grammar.ends, 0)
    # No text can follow: the sequence has ended before this row counts. Filters want a candidate, all the same.
    masks[~masks.any(axis=1)] = ANYTHING
