"""A drafter that knows what will be written, and says it with mistakes: runs of every length are accepted, and cut."""

import random
from collections.abc import Mapping

from tandem.engine.draft_source import DrafterInfo, Drafts

WRONG_SHARE = 0.25


class OracleDrafter:
    """A `DraftSource` made from the texts that are to come."""

    info = DrafterInfo("oracle", 7, "test")

    def __init__(self, texts: Mapping[tuple[int, ...], list[int]], vocabulary_size: int, seed: int = 0) -> None:
        """`texts` are the continuations by prompt; no prompt begins another."""
        self._texts = texts
        self._vocabulary_size = vocabulary_size
        self._rng = random.Random(seed)

    def begin(self, wanted):
        self._wanted = wanted
        return True

    def collect(self):
        return Drafts([self._draft(one.token_ids, one.num_tokens) for one in self._wanted])

    def close(self):
        pass

    def _draft(self, token_ids, num_tokens):
        prompt = next(prompt for prompt in self._texts if tuple(token_ids[: len(prompt)]) == prompt)
        written = len(token_ids) - len(prompt)
        coming = self._texts[prompt][written : written + num_tokens]
        return [
            self._rng.randrange(self._vocabulary_size) if self._rng.random() < WRONG_SHARE else token_id
            for token_id in coming
        ]
