"""Sequences that begin alike share the KV of their beginning, also one after the other."""

from collections.abc import Sequence as Digests

from tandem.core.sequence import Sequence
from tandem.kv_cache.block_digests import extend_digests
from tandem.kv_cache.kv_allocator import KvAllocator


class PrefixCache:
    """What a sequence may take from others, and what it lets them have: full blocks of committed tokens."""

    def __init__(self, kv: KvAllocator, is_enabled: bool) -> None:
        """Takes the allocator whose blocks are shared; nothing is ever found if not enabled."""
        self._kv = kv
        self._is_enabled = is_enabled

    def find(self, sequence: Sequence) -> Digests[bytes]:
        """The first blocks of a sequence that need not be computed.

        The last committed token always is: the next one is chosen from its row, which the drafter reads as well. A
        prompt whose log-probabilities are asked for needs every row.
        """
        if not self._is_enabled or sequence.needs_prompt_rows:
            return ()
        self._name_blocks(sequence)
        return self._kv.find(sequence.block_digests[: (len(sequence.committed) - 1) // self._kv.block_size])

    def publish(self, sequence: Sequence) -> None:
        """Lets others find what a running sequence has computed."""
        if self._is_enabled:
            self._name_blocks(sequence)
            num_blocks = sequence.num_computed_tokens // self._kv.block_size
            self._kv.publish(sequence.sequence_id, sequence.block_digests, num_blocks)

    def _name_blocks(self, sequence: Sequence) -> None:
        extend_digests(sequence.block_digests, sequence.committed, self._kv.block_size, sequence.cache_salt)
