"""`AttentionBackend` for CUDA devices: plans pieces, and leaves the rest to `paged_kernel`.

A step is planned on the host, or on the device where only the device knows the positions (`prepare_on_device`).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from tandem.attention.base import AttentionMetadata
from tandem.attention.device_batch import DeviceBatch
from tandem.attention.metadata import QueryBatch
from tandem.attention.paged_kernel import attend_paged
from tandem.kv_cache.group import KvGroup
from tandem.kv_cache.scales import UNSCALED, KvScales

NO_WINDOW = 1 << 30
_BLOCK_ROWS = {torch.float32: 16}  # as many as fit a multiprocessor's shared memory at the largest head
_MANY_BLOCK_ROWS = 64  # of smaller numbers
_MIN_BLOCK_ROWS = 16  # of a product on tensor cores
_ROUND_ROWS = 8  # rows of a sequence that a piece of a round has at most: short pieces wait less for their keys
# Keys of a split, by the position from which on it holds: long texts are cut into fewer, longer splits, so that merging
# them costs little beside reading their keys.
_SPLIT_SIZES = ((0, 128), (2048, 512), (16384, 1024), (65536, 4096))


@dataclass(frozen=True)
class _Plan:
    """Of one group, for all its layers."""

    pieces: torch.Tensor  # [P, 6] int32
    tables: torch.Tensor  # [S, W] int32
    block_rows: int  # query heads times rows that a piece has at most
    max_splits: int
    window: int
    block_size: int


class PagedBackend:
    """Plans are two copies to the device a group; nothing is read back."""

    def __init__(self, num_heads: int, device: torch.device | str, dtype: torch.dtype) -> None:
        """Plans for networks of `num_heads` query heads, with keys and values of `dtype`."""
        self._num_heads = num_heads
        self._block_rows = _BLOCK_ROWS.get(dtype, _MANY_BLOCK_ROWS)
        self._device = torch.device(device)

    def prepare(self, batch: QueryBatch, groups: Iterable[KvGroup], block_size: int) -> AttentionMetadata:
        """Plans a step for `groups`, whose names `batch.block_tables` must have."""
        slot_mapping, plans = {}, {}
        for group in groups:
            tables = batch.block_tables[group.name]
            slot_mapping[group.name] = self._tensor(list(batch.slots_written(group.name, block_size)), torch.int64)
            plans[group.name] = self._plan(batch, group, tables, block_size)
        return AttentionMetadata(
            batch.num_tokens, self._tensor(list(batch.positions()), torch.int64), slot_mapping, plans
        )

    def prepare_on_device(self, batch: DeviceBatch, groups: Iterable[KvGroup], block_size: int) -> AttentionMetadata:
        """Plans a round without the host: nothing is copied, so that a captured graph may hold it."""
        positions = batch.positions()
        slot_mapping, plans = {}, {}
        for group in groups:
            slot_mapping[group.name] = batch.slots_written(group, block_size)
            window = group.window or NO_WINDOW
            # The same for verifies of one row and of several, so that a row rounds alike in both.
            wanted = _ROUND_ROWS * self._num_heads // group.num_kv_heads
            block_rows = min(self._block_rows, max(_MIN_BLOCK_ROWS, 1 << (wanted - 1).bit_length()))
            rows_per_piece = self._rows_per_piece(group, block_rows)
            plans[group.name] = _Plan(
                pieces=_pieces_on_device(batch, rows_per_piece),
                tables=batch.block_tables[group.name],
                block_rows=block_rows,
                max_splits=_most_splits(batch.max_position, rows_per_piece, window),
                window=window,
                block_size=block_size,
            )
        return AttentionMetadata(positions.shape[0], positions, slot_mapping, plans)

    def attend(
        self,
        query: torch.Tensor,  # [num_rows, num_heads, head_dim]
        kv: torch.Tensor,  # [num_slots, 2, num_kv_heads, head_dim]
        plan: _Plan,
        scales: KvScales = UNSCALED,
    ) -> torch.Tensor:  # [num_rows, num_heads, head_dim]
        """Softmax(q k) v with scale 1."""
        return attend_paged(
            query.contiguous(),
            kv,
            plan.pieces,
            plan.tables,
            block_size=plan.block_size,
            block_rows=plan.block_rows,
            max_splits=plan.max_splits,
            window=plan.window,
            key_scale=scales.key,
            value_scale=scales.value,
        )

    def _plan(self, batch: QueryBatch, group: KvGroup, tables: Sequence[Sequence[int]], block_size: int) -> _Plan:
        window = group.window or NO_WINDOW
        pieces = list(_pieces(batch, self._rows_per_piece(group, self._block_rows)))
        width = max(map(len, tables))
        return _Plan(
            pieces=self._tensor(pieces, torch.int32),
            tables=self._tensor([[*table, *[0] * (width - len(table))] for table in tables], torch.int32),
            block_rows=self._block_rows,
            max_splits=max(_num_splits(piece, window) for piece in pieces),
            window=window,
            block_size=block_size,
        )

    def _rows_per_piece(self, group: KvGroup, block_rows: int) -> int:
        rows_per_piece = block_rows * group.num_kv_heads // self._num_heads
        assert rows_per_piece, "more query heads read a KV head than a piece has rows"
        return rows_per_piece

    def _tensor(self, values: Sequence[object], dtype: torch.dtype) -> torch.Tensor:
        is_cuda = self._device.type == "cuda"  # pinned memory lets the copy run behind the host's back
        return torch.tensor(values, dtype=dtype, pin_memory=is_cuda).to(self._device, non_blocking=True)


def _pieces(batch: QueryBatch, rows_per_piece: int) -> Iterator[tuple[int, int, int, int, int, int]]:
    """Runs of rows whose keys are cut alike: first row, rows, position, visible keys, sequence, split size."""
    first_row = 0
    for sequence, (start, length, num_keys) in enumerate(
        zip(batch.start_positions, batch.query_lens, batch.num_keys, strict=True)
    ):
        position, end = start, start + length
        while position < end:
            split_size, until = _split_size(position)
            stop = min(end, position + rows_per_piece, until)
            yield first_row + position - start, stop - position, position, num_keys, sequence, split_size
            position = stop
        first_row += length


def _split_size(position: int) -> tuple[int, int]:
    """Keys of a split for a query at a position, and the position from which on that changes."""
    index = max(index for index, (first, _) in enumerate(_SPLIT_SIZES) if first <= position)
    until = _SPLIT_SIZES[index + 1][0] if index + 1 < len(_SPLIT_SIZES) else position + NO_WINDOW
    return _SPLIT_SIZES[index][1], until


def _num_splits(piece: tuple[int, int, int, int, int, int], window: int) -> int:
    _, num_rows, start, num_keys, _, split_size = piece
    first_key, end_key = max(0, start - window + 1), min(num_keys, start + num_rows)
    assert first_key < end_key, "a row sees no key"
    return (end_key - 1) // split_size - first_key // split_size + 1


def _pieces_on_device(batch: DeviceBatch, rows_per_piece: int) -> torch.Tensor:  # [B * C, 6] int32
    """The same runs of rows, as many for each sequence: those before the one cut that it may meet, then those after.

    Runs that a sequence does not need have no rows.
    """
    num_rows, starts = batch.num_rows, batch.starts.unsqueeze(1)  # [B, 1]
    boundaries = [first for first, _ in _SPLIT_SIZES[1:]]
    assert num_rows < min(boundaries), "a sequence meets one cut at most"
    cut = torch.full_like(starts, NO_WINDOW)
    for boundary in reversed(boundaries):
        cut = torch.where(starts < boundary, boundary, cut)
    lead = (cut - starts).clamp(max=num_rows)
    offsets = torch.arange(0, num_rows, rows_per_piece, device=starts.device).unsqueeze(0)  # [1, C]
    if num_rows == 1:
        first, lengths = offsets.expand(starts.shape), lead
    else:
        first = torch.cat((offsets.expand(len(starts), -1), lead + offsets), 1)  # [B, 2 C]
        lengths = torch.cat((lead - offsets, num_rows - lead - offsets), 1).clamp(0, rows_per_piece)
    places = starts + first
    sizes = torch.full_like(places, _SPLIT_SIZES[0][1])
    for boundary, size in _SPLIT_SIZES[1:]:
        sizes = torch.where(places >= boundary, size, sizes)
    rows = torch.arange(len(starts), device=starts.device).unsqueeze(1) * num_rows + first
    shape = places.shape
    numbers = (rows, lengths, places, batch.num_keys.unsqueeze(1), batch.sequences.unsqueeze(1), sizes)
    return torch.stack([number.expand(shape) for number in numbers], -1).flatten(0, 1).int()


def _most_splits(max_position: int, rows_per_piece: int, window: int) -> int:
    """Of any piece whose rows stand at `max_position` or before."""
    most = 0
    for first, size in _SPLIT_SIZES:
        if first <= max_position:
            until = min(_split_size(first)[1] - 1, max_position)
            num_keys = min(until + 1, window + rows_per_piece - 1)
            # Keys that do not begin at 0 may begin and end in the middle of a split.
            most = max(most, -(-num_keys // size) + (window <= until))
    return most
