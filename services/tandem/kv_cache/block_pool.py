"""The blocks of one KV group: who holds one, and what those that nobody holds still remember."""

from collections import Counter
from collections.abc import Iterable


class BlockPool:
    """Block ids 0..n-1, each held by any number of tables.

    A block may be published under a digest of the tokens whose KV it holds, and is then found by it. Once nobody holds
    it, it is kept for whoever looks for it, until its room is needed: least recently held first.
    """

    def __init__(self, num_blocks: int) -> None:
        """Starts with every block free."""
        assert num_blocks > 0
        self.num_blocks = num_blocks
        self.num_evictions = 0  # kept blocks whose room was needed
        self._num_holders = [0] * num_blocks
        self._blank = list(range(num_blocks - 1, -1, -1))  # a stack: what was used last is warm in the caches
        self._kept: dict[int, None] = {}  # published and held by nobody, least recently held first
        self._block_of: dict[bytes, int] = {}  # by digest
        self._digest_of: dict[int, bytes] = {}  # of published blocks

    @property
    def num_free(self) -> int:
        """Blocks that `take` can still give."""
        return len(self._blank) + len(self._kept)

    def take(self, count: int) -> list[int]:
        """Takes blocks for new content; the caller has seen that `num_free` suffices."""
        assert 0 <= count <= self.num_free, "a pool was asked for more than it has"
        while len(self._blank) < count:
            self._blank.append(self._evict())
        taken = [self._blank.pop() for _ in range(count)]
        for block_id in taken:
            self._num_holders[block_id] = 1
        return taken

    def publish(self, block_id: int, digest: bytes) -> None:
        """Lets a block be found whose content is final.

        Of two blocks with the same content the one that is held stays findable, the older one if both are: sequences
        that share a block in one group then share it in every group.
        """
        assert self.is_private(block_id), f"block {block_id} is published already"
        known = self._block_of.get(digest)
        if known is not None:
            if self._num_holders[known]:
                return
            self._blank.append(self._forget(known))
        self._block_of[digest] = block_id
        self._digest_of[block_id] = digest

    def find(self, digest: bytes) -> int | None:
        """The block published under a digest, held or kept."""
        return self._block_of.get(digest)

    def hold(self, block_ids: Iterable[int]) -> None:
        """Takes published blocks with their content."""
        for block_id in block_ids:
            assert block_id in self._digest_of, f"block {block_id} has no content to share"
            self._kept.pop(block_id, None)
            self._num_holders[block_id] += 1

    def give_back(self, block_ids: Iterable[int]) -> None:
        """Ends one hold on each; what is given back first is evicted first."""
        for block_id in block_ids:
            assert self._num_holders[block_id], f"block {block_id} is given back twice"
            self._num_holders[block_id] -= 1
            if self._num_holders[block_id]:
                continue
            if block_id in self._digest_of:
                self._kept[block_id] = None
            else:
                self._blank.append(block_id)

    def num_held(self, digests: Iterable[bytes]) -> int:
        """How many of these published blocks are held: to share them takes no room."""
        return sum(self._num_holders[self._block_of[digest]] > 0 for digest in digests)

    def is_private(self, block_id: int) -> bool:
        """Whether its one holder may write to it: nobody else holds it, or could find it."""
        return self._num_holders[block_id] == 1 and block_id not in self._digest_of

    def check_integrity(self, held: Iterable[int]) -> None:
        """Raises AssertionError unless `held`, the entries of all tables, are what is held, and the rest is free."""
        holders = Counter(held)
        counts = {block_id: count for block_id, count in enumerate(self._num_holders) if count}
        assert holders == counts, "tables and counts of holders differ"
        free = {*self._blank, *self._kept}
        assert len(free) == self.num_free, "a block is free twice"
        assert free.isdisjoint(holders), "a block is free and held"
        assert len(free) + len(holders) == self.num_blocks, "a block is lost"
        assert len(self._block_of) == len(self._digest_of)
        assert all(self._block_of[digest] == block_id for block_id, digest in self._digest_of.items())
        assert self._kept.keys() <= self._digest_of.keys(), "a block is kept that nobody could find"
        assert self._digest_of.keys().isdisjoint(self._blank), "a blank block can be found"

    def _evict(self) -> int:
        self.num_evictions += 1
        return self._forget(next(iter(self._kept)))

    def _forget(self, block_id: int) -> int:
        """Ends that a kept block is found."""
        del self._kept[block_id]
        del self._block_of[self._digest_of.pop(block_id)]
        return block_id
