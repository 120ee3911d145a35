"""A `QueryBatch` as plain numbers, for another process that plans the same step.

number of sequences;  of each: rows, position, visible keys;
of each group, in an order that both know, and each sequence: number of blocks, their ids
"""

from collections.abc import Sequence

from tandem.attention.metadata import QueryBatch


def to_numbers(batch: QueryBatch, groups: Sequence[str]) -> list[int]:
    """The batch, whose tables are those of `groups`."""
    numbers = [batch.num_seqs]
    for values in (batch.query_lens, batch.start_positions, batch.num_keys):
        numbers += values
    for group in groups:
        for table in batch.block_tables[group]:
            numbers += [len(table), *table]
    return numbers


def from_numbers(numbers: Sequence[int], groups: Sequence[str]) -> QueryBatch:
    """The batch that `to_numbers` was given."""
    num_seqs, at = numbers[0], 1

    def take(count: int) -> tuple[int, ...]:
        nonlocal at
        at += count
        assert at <= len(numbers)
        return tuple(numbers[at - count : at])

    query_lens, start_positions, num_keys = take(num_seqs), take(num_seqs), take(num_seqs)
    tables = {group: [take(*take(1)) for _ in range(num_seqs)] for group in groups}
    assert at == len(numbers)
    return QueryBatch(query_lens, start_positions, num_keys, tables)
