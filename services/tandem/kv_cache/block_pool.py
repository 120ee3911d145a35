"""The blocks of one KV group: who may take one, and who gives it back."""

from collections.abc import Iterable


class BlockPool:
    """Block ids 0..n-1, each either free or taken."""

    def __init__(self, num_blocks: int) -> None:
        """Starts with every block free."""
        assert num_blocks > 0
        self.num_blocks = num_blocks
        self._free = list(range(num_blocks - 1, -1, -1))  # a stack: what was used last is warm in the caches
        self._is_taken = [False] * num_blocks

    @property
    def num_free(self) -> int:
        """Blocks that `take` can still give."""
        return len(self._free)

    def take(self, count: int) -> list[int]:
        """Takes blocks; the caller has seen that `num_free` suffices."""
        assert 0 <= count <= self.num_free, "a pool was asked for more than it has"
        taken = [self._free.pop() for _ in range(count)]
        for block_id in taken:
            self._is_taken[block_id] = True
        return taken

    def give_back(self, block_ids: Iterable[int]) -> None:
        """Makes blocks free again."""
        for block_id in block_ids:
            assert self._is_taken[block_id], f"block {block_id} is given back twice"
            self._is_taken[block_id] = False
            self._free.append(block_id)

    def check_integrity(self, held: Iterable[int]) -> None:
        """Raises AssertionError unless `held`, the blocks that tables name, are exactly those taken."""
        holders = list(held)
        assert len(set(holders)) == len(holders), "two tables name the same block"
        assert {block_id for block_id, is_taken in enumerate(self._is_taken) if is_taken} == set(holders), (
            "a block is taken that no table names, or named and free"
        )
        assert len(self._free) + len(holders) == self.num_blocks
        assert len(set(self._free)) == len(self._free), "a block is free twice"
