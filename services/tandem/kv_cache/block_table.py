"""Where the KV of one sequence lies, in one KV group."""

from collections.abc import Sequence

from tandem.kv_cache.block_pool import BlockPool

RELEASED = -1


class BlockTable:
    """Block ids of positions 0, block_size, 2 * block_size, ...; the list only grows, and old entries may be released.

    In a sliding group a block goes back to the pool once no query to come can see any of its keys. The first blocks may
    be shared with other sequences: those that were full of computed tokens when the table began, or have become so.
    """

    def __init__(self, pool: BlockPool, block_size: int, window: int | None) -> None:
        """Starts empty.

        Args:
            pool: where blocks come from.
            block_size: tokens a block.
            window: of a sliding group, in tokens; None for a full one.
        """
        self.block_ids: list[int] = []
        self._pool = pool
        self._block_size = block_size
        self._window = window
        self._num_released = 0
        self._num_final = 0  # entries whose blocks are never written again

    @property
    def held(self) -> list[int]:
        """Blocks that are this table's now."""
        return self.block_ids[self._num_released :]

    def num_unseen(self, next_position: int) -> int:
        """Leading blocks of which no query at `next_position` or later sees a key."""
        if self._window is None:
            return 0
        return max(0, next_position - self._window + 1) // self._block_size

    def num_missing(self, num_tokens: int) -> int:
        """Blocks to take before positions 0..num_tokens-1 all have one."""
        return max(0, -(-num_tokens // self._block_size) - len(self.block_ids))

    def find(self, digests: Sequence[bytes]) -> int:
        """The most leading blocks that can be had without computing them: the next query must see none but found ones.

        Args:
            digests: of the sequence's first blocks.
        """
        if self._window is None:
            return next(
                (index for index, digest in enumerate(digests) if self._pool.find(digest) is None), len(digests)
            )
        end = index = len(digests)
        # Blocks index..end-1 are found. Where one is not, no run that it belongs to counts.
        while index > self.num_unseen(end * self._block_size):
            index -= 1
            if self._pool.find(digests[index]) is None:
                end = index
        return end

    def share(self, digests: Sequence[bytes]) -> None:
        """Begins an empty table with the blocks of `digests`, as many as `find` found."""
        assert not self.block_ids
        self._num_released = self.num_unseen(len(digests) * self._block_size)
        found = [self._pool.find(digest) for digest in digests[self._num_released :]]
        self.block_ids = [RELEASED] * self._num_released + [block_id for block_id in found if block_id is not None]
        self._num_final = len(self.block_ids)
        assert self._num_final == len(digests), "a block that was found is gone"
        self._pool.hold(self.held)

    def reserve(self, num_tokens: int) -> None:
        """Takes the missing blocks; the caller has seen that the pool has them."""
        self.block_ids.extend(self._pool.take(self.num_missing(num_tokens)))

    def publish(self, digests: Sequence[bytes], num_blocks: int) -> None:
        """Lets others find the first `num_blocks` blocks, all of whose tokens are computed and committed."""
        for index in range(self._num_final, num_blocks):
            assert self.block_ids[index] != RELEASED, "a block went back before it could be found"
            self._pool.publish(self.block_ids[index], digests[index])
        self._num_final = max(self._num_final, num_blocks)

    def release_unseen(self, next_position: int) -> None:
        """Gives back what no query at `next_position` or later can see."""
        num_unseen = min(self.num_unseen(next_position), len(self.block_ids))
        if num_unseen > self._num_released:
            unseen = self.block_ids[self._num_released : num_unseen]
            self.block_ids[self._num_released : num_unseen] = [RELEASED] * len(unseen)
            self._num_released = num_unseen
            self._pool.give_back(unseen)

    def release(self) -> None:
        """Gives everything back, the end first, which is of use to the fewest; the table is empty then."""
        self._pool.give_back(reversed(self.held))
        self.block_ids.clear()
        self._num_released = self._num_final = 0

    def check_integrity(self) -> None:
        """Raises AssertionError if a block that is written to belongs to others, too."""
        written = self.block_ids[max(self._num_final, self._num_released) :]
        assert all(self._pool.is_private(block_id) for block_id in written), "a shared block is written to"
