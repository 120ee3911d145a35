"""Where the KV of one sequence lies, in one KV group."""

from tandem.kv_cache.block_pool import BlockPool

RELEASED = -1


class BlockTable:
    """Block ids of positions 0, block_size, 2 * block_size, ...; the list only grows, and old entries may be released.

    In a sliding group a block goes back to the pool once no query to come can see any of its keys.
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

    @property
    def held(self) -> list[int]:
        """Blocks that are this table's now."""
        return self.block_ids[self._num_released :]

    def num_missing(self, num_tokens: int) -> int:
        """Blocks to take before positions 0..num_tokens-1 all have one."""
        return max(0, -(-num_tokens // self._block_size) - len(self.block_ids))

    def reserve(self, num_tokens: int) -> None:
        """Takes the missing blocks; the caller has seen that the pool has them."""
        self.block_ids.extend(self._pool.take(self.num_missing(num_tokens)))

    def release_unseen(self, next_position: int) -> None:
        """Gives back what no query at `next_position` or later can see."""
        if self._window is None:
            return
        num_unseen = min(max(0, next_position - self._window + 1) // self._block_size, len(self.block_ids))
        if num_unseen > self._num_released:
            unseen = self.block_ids[self._num_released : num_unseen]
            self.block_ids[self._num_released : num_unseen] = [RELEASED] * len(unseen)
            self._num_released = num_unseen
            self._pool.give_back(unseen)

    def release(self) -> None:
        """Gives everything back; the table is empty then."""
        self._pool.give_back(self.held)
        self.block_ids.clear()
        self._num_released = 0
