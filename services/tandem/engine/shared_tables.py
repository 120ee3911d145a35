"""Which entries of the block tables the device has been told."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tandem.kv_cache.kv_allocator import KvAllocator


@dataclass(frozen=True)
class NewBlocks:
    """Entries `first`, `first + 1`, ... of one table, which the device does not know yet."""

    group: str
    first: int
    block_ids: Sequence[int]


class SharedTables:
    """Follows the tables of the sequences in slots. Tables only grow, so what was told once stays right."""

    def __init__(self, kv: KvAllocator, groups: Iterable[str]) -> None:
        """Takes who holds which blocks, and the groups that there are."""
        self._kv = kv
        self._groups = tuple(groups)
        self._num_told: dict[int, dict[str, int]] = {}  # by slot

    def enter(self, slot: int) -> None:
        """Another sequence takes a slot; the device knows nothing of its tables."""
        self._num_told[slot] = dict.fromkeys(self._groups, 0)

    def take_new(self, sequence_id: int, slot: int) -> list[NewBlocks]:
        """What is new since the last call; the caller tells it the device."""
        new, num_told = [], self._num_told[slot]
        for group, first in num_told.items():
            block_ids = self._kv.block_ids(sequence_id, group)
            if len(block_ids) > first:
                new.append(NewBlocks(group, first, block_ids[first:]))
                num_told[group] = len(block_ids)
        return new
