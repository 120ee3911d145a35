"""Which beginnings of prompts a verifier was sent lately, and so probably holds the KV of."""

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence

BLOCK_TOKENS = 64
MAX_BLOCKS = 128  # of a prompt: who shares so much shares a verifier, whatever follows
MAX_REMEMBERED = 16_384  # blocks: a million tokens
DIGEST_BYTES = 16


def prefix_digests(token_ids: Sequence[int], salt: str) -> list[bytes]:
    """One name for each beginning of so many blocks, shortest first; other salts give other names.

    All blocks are full, but for the one of a prompt that does not fill one.
    """
    ids = array("i", token_ids[: MAX_BLOCKS * BLOCK_TOKENS])
    digest = hashlib.blake2b(salt.encode(), digest_size=DIGEST_BYTES).digest()
    digests = []
    for start in range(0, max(1, len(ids) - BLOCK_TOKENS + 1), BLOCK_TOKENS):
        block = ids[start : start + BLOCK_TOKENS].tobytes()
        digest = hashlib.blake2b(digest + block, digest_size=DIGEST_BYTES).digest()
        digests.append(digest)
    return digests


class PrefixMemory:
    """The beginnings that one verifier was sent last. A guess: only the verifier knows what it still holds."""

    def __init__(self) -> None:
        """Starts empty."""
        self._digests: OrderedDict[bytes, None] = OrderedDict()  # latest use last

    def add(self, digests: Sequence[bytes]) -> None:
        """Remembers a prompt, by its `prefix_digests`."""
        for digest in reversed(digests):  # the shortest last, to stay longest: it is the one that most others share
            self._digests[digest] = None
            self._digests.move_to_end(digest)
        while len(self._digests) > MAX_REMEMBERED:
            self._digests.popitem(last=False)

    def num_known_tokens(self, digests: Sequence[bytes]) -> int:
        """How much of a prompt, from its first token on, was in one sent before."""
        known = next((index for index, digest in enumerate(digests) if digest not in self._digests), len(digests))
        return known * BLOCK_TOKENS

    def clear(self) -> None:
        """The verifier has begun anew."""
        self._digests.clear()
