"""The block tables of all sequences, over the pools of all KV groups."""

from collections.abc import Iterable, Mapping, Sequence

from tandem.kv_cache.block_pool import BlockPool
from tandem.kv_cache.block_table import BlockTable
from tandem.kv_cache.group import KvGroup


class KvAllocator:
    """Gives a sequence blocks in every group or in none.

    Blocks can be shared: a sequence's first ones may be those of another with the same beginning. They are named by
    digests, one for each block's worth of tokens (see `block_digests`).
    """

    def __init__(self, groups: Iterable[KvGroup], num_blocks: Mapping[str, int], block_size: int) -> None:
        """Starts with every block free.

        Args:
            groups: of the model.
            num_blocks: blocks of each group, by its name.
            block_size: tokens a block.
        """
        self.block_size = block_size
        self._windows = {group.name: group.window for group in groups}
        self._pools = {name: BlockPool(num_blocks[name]) for name in self._windows}
        self._tables: dict[int, dict[str, BlockTable]] = {}  # by sequence id

    @property
    def pools(self) -> Mapping[str, BlockPool]:
        """The blocks of each group, by its name."""
        return self._pools

    @property
    def usage(self) -> float:
        """Share of the fullest group's blocks that are held, 0..1."""
        return max(1.0 - pool.num_free / pool.num_blocks for pool in self._pools.values())

    @property
    def num_evictions(self) -> int:
        """Blocks that were kept to be found again until their room was needed."""
        return sum(pool.num_evictions for pool in self._pools.values())

    def can_ever_hold(self, num_tokens: int) -> bool:
        """Whether one sequence of that length fits an otherwise empty cache."""
        return all(self._num_blocks(num_tokens) <= pool.num_blocks for _, pool in self._full_pools())

    def find(self, digests: Sequence[bytes]) -> Sequence[bytes]:
        """Those of a sequence's first blocks that it can share, in every group.

        A full group needs them all, a sliding one the last of them, which the next query sees; the longest beginning
        that suits both counts.
        """
        tables = self._new_tables().values()
        while digests and (num_found := min(table.find(digests) for table in tables)) < len(digests):
            digests = digests[:num_found]
        return digests

    def share(self, sequence_id: int, digests: Sequence[bytes]) -> None:
        """Begins a sequence with blocks that `find` found a moment ago."""
        assert sequence_id not in self._tables
        self._tables[sequence_id] = self._new_tables()
        for table in self._tables[sequence_id].values():
            table.share(digests)

    def publish(self, sequence_id: int, digests: Sequence[bytes], num_blocks: int) -> None:
        """Lets others find a sequence's first `num_blocks` blocks: full of computed tokens, never written again."""
        for table in self._tables[sequence_id].values():
            table.publish(digests, num_blocks)

    def has_room_for(self, num_tokens: int, growing: Mapping[int, int], shared: Sequence[bytes] = ()) -> bool:
        """Whether a new sequence of that length fits now.

        Args:
            num_tokens: that the new sequence will hold.
            growing: sequence id -> tokens that it is about to hold; their blocks are not given away.
            shared: digests of the blocks that it would share.
        """
        return all(
            self._num_blocks(num_tokens) - pool.num_held(shared) + self._num_promised(name, growing) <= pool.num_free
            for name, pool in self._full_pools()
        )

    def reserve(self, sequence_id: int, num_tokens: int) -> bool:
        """Makes positions 0..num_tokens-1 of a sequence writable; False, and nothing taken, when blocks run out."""
        tables = self._tables.get(sequence_id) or self._new_tables()
        if any(table.num_missing(num_tokens) > self._pools[name].num_free for name, table in tables.items()):
            return False
        self._tables[sequence_id] = tables
        for table in tables.values():
            table.reserve(num_tokens)
        return True

    def block_ids(self, sequence_id: int, group: str) -> list[int]:
        """A sequence's blocks in one group, from position 0 on; not to be changed."""
        return self._tables[sequence_id][group].block_ids

    def release_unseen(self, sequence_id: int, next_position: int) -> None:
        """Gives back what a sequence's queries at `next_position` or later cannot see."""
        for table in self._tables[sequence_id].values():
            table.release_unseen(next_position)

    def release(self, sequence_id: int) -> None:
        """Gives back all that a sequence holds, if anything."""
        for table in self._tables.pop(sequence_id, {}).values():
            table.release()

    @property
    def holders(self) -> set[int]:
        """Sequences that hold blocks."""
        return set(self._tables)

    def check_integrity(self) -> None:
        """Raises AssertionError if a block is lost, or one that is written to is held by two."""
        for name, pool in self._pools.items():
            tables = [of_sequence[name] for of_sequence in self._tables.values()]
            pool.check_integrity(block_id for table in tables for block_id in table.held)
            for table in tables:
                table.check_integrity()

    def _new_tables(self) -> dict[str, BlockTable]:
        return {name: BlockTable(self._pools[name], self.block_size, window) for name, window in self._windows.items()}

    def _full_pools(self) -> Iterable[tuple[str, BlockPool]]:
        """The pools that limit what fits: `num_blocks_for` makes sliding ones large enough."""
        return ((name, self._pools[name]) for name, window in self._windows.items() if window is None)

    def _num_promised(self, name: str, growing: Mapping[int, int]) -> int:
        """Blocks of a full group that sequences will still take until they hold the tokens of `growing`."""
        return sum(
            max(0, self._num_blocks(num_tokens) - self._num_held(name, sequence_id))
            for sequence_id, num_tokens in growing.items()
        )

    def _num_held(self, name: str, sequence_id: int) -> int:
        tables = self._tables.get(sequence_id)
        return len(tables[name].held) if tables else 0

    def _num_blocks(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)


def num_blocks_for(
    groups: Iterable[KvGroup], kv_tokens: int, block_size: int, max_sequences: int, max_step_tokens: int
) -> dict[str, int]:
    """Blocks of each group, such that only full groups can run out.

    A sequence holds in a sliding group what its next query sees and the rows of its current step, both of which may
    begin in the middle of a block; and never more blocks than in a full group.
    """
    num_full = -(-kv_tokens // block_size)

    def most(window: int) -> int:
        num_seen = -(-(window - 1) // block_size) + 1
        return max_sequences * (num_seen + 1) + -(-max_step_tokens // block_size)

    return {group.name: num_full if group.window is None else min(num_full, most(group.window)) for group in groups}
