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
from tandem.attention.plan_kernel import plan_on_device
from tandem.attention.splits import GROWING, WINDOWED, SplitSizes
from tandem.kv_cache.group import KvGroup
from tandem.kv_cache.scales import UNSCALED, KvScales

NO_WINDOW = 1 << 30
_BLOCK_ROWS = {torch.float32: 16}  # as many as fit a multiprocessor's shared memory at the largest head
_MANY_BLOCK_ROWS = 64  # of smaller numbers
_MIN_BLOCK_ROWS = 16  # of a product on tensor cores
_ROUND_ROWS = 8  # rows of a sequence that a piece of a round has at most: short pieces wait less for their keys
_ROUND_STEP_ROWS = 128  # rows of a step that is cut into pieces like a round: beyond, a row rounds by the step's size


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

    def __init__(
        self, num_heads: int, device: torch.device | str, dtype: torch.dtype, is_batch_invariant: bool = True
    ) -> None:
        """Plans for networks of `num_heads` query heads, with keys and values of `dtype`.

        Args:
            num_heads: query heads of every layer.
            device: where plans go.
            dtype: of queries.
            is_batch_invariant: whether a row must round the same in rounds of any number of rows, and in small steps.
        """
        self._num_heads = num_heads
        self._block_rows = _BLOCK_ROWS.get(dtype, _MANY_BLOCK_ROWS)
        self._device = torch.device(device)
        self._is_batch_invariant = is_batch_invariant

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
        slot_mapping, plans = {}, {}
        for group in groups:
            block_rows = self._block_rows_of(group, batch.num_rows)
            rows_per_piece = self._rows_per_piece(group, block_rows)
            window, sizes = group.window or NO_WINDOW, _sizes_of(group)
            positions, slot_mapping[group.name], pieces = plan_on_device(
                batch, group, block_size, rows_per_piece, sizes
            )
            plans[group.name] = _Plan(
                pieces=pieces,
                tables=batch.block_tables[group.name],
                block_rows=block_rows,
                max_splits=sizes.most_splits(batch.max_position, window, rows_per_piece),
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
        window, sizes = group.window or NO_WINDOW, _sizes_of(group)
        is_small = self._is_batch_invariant and batch.num_tokens <= _ROUND_STEP_ROWS
        block_rows = self._block_rows_of(group, _ROUND_ROWS) if is_small else self._block_rows
        pieces = list(_pieces(batch, self._rows_per_piece(group, block_rows), sizes))
        width = max(map(len, tables))
        return _Plan(
            pieces=self._tensor(pieces, torch.int32),
            tables=self._tensor([[*table, *[0] * (width - len(table))] for table in tables], torch.int32),
            block_rows=block_rows,
            max_splits=max(_num_splits(piece, window) for piece in pieces),
            window=window,
            block_size=block_size,
        )

    def _block_rows_of(self, group: KvGroup, num_rows: int) -> int:
        """Of a round: where rows must round alike, the same for any number of rows."""
        wanted = (_ROUND_ROWS if self._is_batch_invariant else num_rows) * self._num_heads // group.num_kv_heads
        return min(self._block_rows, max(_MIN_BLOCK_ROWS, 1 << (wanted - 1).bit_length()))

    def _rows_per_piece(self, group: KvGroup, block_rows: int) -> int:
        rows_per_piece = block_rows * group.num_kv_heads // self._num_heads
        assert rows_per_piece, "more query heads read a KV head than a piece has rows"
        return rows_per_piece

    def _tensor(self, values: Sequence[object], dtype: torch.dtype) -> torch.Tensor:
        is_cuda = self._device.type == "cuda"  # pinned memory lets the copy run behind the host's back
        return torch.tensor(values, dtype=dtype, pin_memory=is_cuda).to(self._device, non_blocking=True)


def _sizes_of(group: KvGroup) -> SplitSizes:
    return GROWING if group.window is None else WINDOWED


def _pieces(batch: QueryBatch, rows_per_piece: int, sizes: SplitSizes) -> Iterator[tuple[int, int, int, int, int, int]]:
    """Runs of rows whose keys are cut alike: first row, rows, position, visible keys, sequence, split size."""
    first_row = 0
    for sequence, (start, length, num_keys) in enumerate(
        zip(batch.start_positions, batch.query_lens, batch.num_keys, strict=True)
    ):
        position, end = start, start + length
        while position < end:
            split_size, until = sizes.at(position)
            stop = min(end, position + rows_per_piece, until)
            yield first_row + position - start, stop - position, position, num_keys, sequence, split_size
            position = stop
        first_row += length


def _num_splits(piece: tuple[int, int, int, int, int, int], window: int) -> int:
    _, num_rows, start, num_keys, _, split_size = piece
    first_key, end_key = max(0, start - window + 1), min(num_keys, start + num_rows)
    assert first_key < end_key, "a row sees no key"
    return (end_key - 1) // split_size - first_key // split_size + 1
