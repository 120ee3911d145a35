"""What one step asks of attention, in plain Python."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

PAD_SLOT_ID = -1  # of a row that writes no key


@dataclass(frozen=True)
class QueryBatch:
    """The query rows of one step, sequence after sequence in flattened order.

    Key k is visible to a query at position q iff k <= q and k < num_keys and (window is None or q - k < window).
    A verifier's rows see themselves: `num_keys` is start + rows. A drafter's row at P sees 0..P-1: `num_keys` is P.

    `block_tables[group][i]` lists the block ids of sequence i from position 0 on; -1 stands for a block that was
    released because every visible key lies behind it.
    """

    query_lens: tuple[int, ...]  # rows of each sequence
    start_positions: tuple[int, ...]  # position of each sequence's first row
    num_keys: tuple[int, ...]  # visible keys 0..n-1 of each sequence
    block_tables: Mapping[str, Sequence[Sequence[int]]]

    def __post_init__(self) -> None:
        """The engine builds these: a contradiction is a defect of ours."""
        assert self.query_lens, "a step has at least one sequence"
        assert len(self.query_lens) == len(self.start_positions) == len(self.num_keys)
        assert min(self.query_lens) > 0 and min(self.start_positions) >= 0 and min(self.num_keys) > 0
        assert all(len(tables) == len(self.query_lens) for tables in self.block_tables.values())

    @property
    def num_seqs(self) -> int:
        """Sequences in the step."""
        return len(self.query_lens)

    @property
    def num_tokens(self) -> int:
        """Query rows in the step."""
        return sum(self.query_lens)

    def positions(self) -> Iterator[int]:
        """The position of every row, in flattened order."""
        for start, length in zip(self.start_positions, self.query_lens, strict=True):
            yield from range(start, start + length)

    def slots_written(self, group: str, block_size: int) -> Iterator[int]:
        """Where the key and value of every row go in a group, in flattened order."""
        for start, length, num_keys, table in zip(
            self.start_positions, self.query_lens, self.num_keys, self.block_tables[group], strict=True
        ):
            for position in range(start, start + length):
                is_written = position < num_keys
                yield table[position // block_size] * block_size + position % block_size if is_written else PAD_SLOT_ID
