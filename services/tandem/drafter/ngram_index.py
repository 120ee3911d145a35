"""Prompt lookup: what followed when the text last said the same.

Idea: Saxena, "Prompt Lookup Decoding" (2023). Text that quotes, edits or sums up what stands before it repeats long
runs of it. So the last few tokens are looked up further up, and the tokens that followed there are proposed: no
network, and right surprisingly often where there is something to copy.
"""

from array import array
from collections.abc import Iterable

# Of n-grams, longest first: the longer what matches, the likelier it goes on alike. Where the demo pair copied, 3.88
# tokens a round were right; with 4-grams besides it was 3.94, for half as much memory again.
SIZES = (3, 2)


class NgramIndex:
    """The tokens of one sequence, and for each n-gram in them where it was last followed by something.

    Adding a token costs one dictionary entry a size; drafting costs one look-up a size, however long the text is.
    """

    def __init__(self) -> None:
        """Starts without tokens."""
        self._token_ids = array("i")
        self._continuations: dict[tuple[int, ...], int] = {}  # n-gram -> position of the token after it

    def __len__(self) -> int:
        """Tokens that it knows."""
        return len(self._token_ids)

    def extend(self, token_ids: Iterable[int]) -> None:
        """Appends tokens."""
        num_before = len(self._token_ids)
        self._token_ids.extend(token_ids)
        num_tokens = len(self._token_ids)
        for size in SIZES:
            # The last n-gram of all is followed by nothing yet; that of before now is.
            first = max(0, num_before - size)
            followed = self._token_ids[first:-1]
            ngrams = zip(*(followed[offset:] for offset in range(size)), strict=False)
            self._continuations.update(zip(ngrams, range(first + size, num_tokens), strict=False))

    def draft(self, num_tokens: int) -> list[int]:
        """What may come next, `num_tokens` long; empty where even the shortest n-gram is new."""
        known = len(self._token_ids)
        for size in SIZES:
            start = self._continuations.get(tuple(self._token_ids[-size:]))
            if start is not None:
                drafts: list[int] = []
                for position in range(start, start + num_tokens):
                    # A copy that reaches the end of the text goes on with itself: so repetition is repeated.
                    drafts.append(self._token_ids[position] if position < known else drafts[position - known])
                return drafts
        return []
