"""Attention in plain torch: what other backends are compared with, and the fast path on a CPU.

A step is cut into pieces: runs of rows of one sequence. Pieces of equal length and similar reach form a bunch, and a
bunch costs one gather and one `scaled_dot_product_attention` a layer. Query heads that read the same KV head become
rows of one product, so that keys and values are never repeated.

A row's result does not depend on which other rows the step has (measured: exact in float32 with MKL, for windows up to
512 keys): every row sees its keys from a multiple of `_KEY_ALIGNMENT` on and in a multiple of it, so that they meet the
vector lanes in the same order, and no product ever has a single row, which BLAS computes by another routine.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf

import torch
import torch.nn.functional as F

from tandem.attention.base import AttentionMetadata
from tandem.attention.metadata import QueryBatch
from tandem.kv_cache.group import KvGroup

_KEY_ALIGNMENT = 16  # lanes of a 512-bit register
_MAX_BUNCHED_ROWS = 16  # longer pieces are attended on their own
_MAX_PIECE_ROWS = 128  # bounds the mask of a long prefill chunk
_PAD_SLOT_ID = -1  # a row that writes no key


@dataclass(frozen=True)
class _Piece:
    """Rows of one sequence, and the keys that any of them may see."""

    seq_index: int
    first_row: int
    num_rows: int
    start: int  # position of the first row
    first_key: int
    last_key: int

    @property
    def num_padded_keys(self) -> int:
        """Keys to gather, from the aligned position at or before the first one on."""
        return _round_up(self.last_key + 1 - _round_down(self.first_key))


@dataclass(frozen=True)
class _Bunch:
    """Pieces of `num_rows` rows each that are attended together."""

    num_seqs: int
    num_rows: int
    slots: torch.Tensor  # [num_seqs * num_keys] int64
    mask: torch.Tensor  # [num_seqs, 1, num_rows * G, num_keys], 0 or -inf
    rows: torch.Tensor | None  # [num_seqs * num_rows] int64; None: all rows of the step, in order


class ReferenceBackend:
    """`AttentionBackend` for any device that torch runs on."""

    def __init__(
        self,
        num_heads: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        pad_single_rows: bool = True,
    ) -> None:
        """Plans for networks of one shape.

        Args:
            num_heads: query heads of every layer.
            device: where plans are made.
            dtype: of queries, keys and values.
            pad_single_rows: run a step of one row as two equal rows, so that it rounds as in any larger step. A
                drafter, whose rounding cannot reach the text, is a little faster without.
        """
        self._num_heads = num_heads
        self._device = torch.device(device)
        self._dtype = dtype
        self._pad_single_rows = pad_single_rows

    @torch.inference_mode()
    def prepare(self, batch: QueryBatch, groups: Iterable[KvGroup], block_size: int) -> AttentionMetadata:
        """Plans a step for `groups`, whose names `batch.block_tables` must have."""
        is_padded = self._pad_single_rows and batch.num_tokens == 1
        copies = 2 if is_padded else 1
        positions = list(batch.positions()) * copies
        slot_mapping, plans = {}, {}
        for group in groups:
            tables = batch.block_tables[group.name]
            plans[group.name] = self._plan(batch, group, tables, block_size, is_padded)
            slot_mapping[group.name] = self._tensor(_slots_written(batch, tables, block_size) * copies)
        return AttentionMetadata(batch.num_tokens, self._tensor(positions), slot_mapping, plans)

    def attend(
        self,
        query: torch.Tensor,  # [num_rows, num_heads, head_dim]
        kv: torch.Tensor,  # [num_slots, 2, num_kv_heads, head_dim]
        plan: Sequence[_Bunch],
    ) -> torch.Tensor:  # [num_rows, num_heads, head_dim]
        """One gather and one product pair a bunch."""
        if len(plan) == 1:
            return _attend_bunch(query, kv, plan[0])
        output = torch.empty_like(query)
        for bunch in plan:
            assert bunch.rows is not None
            output.index_copy_(0, bunch.rows, _attend_bunch(query.index_select(0, bunch.rows), kv, bunch))
        return output

    def _plan(
        self, batch: QueryBatch, group: KvGroup, tables: Sequence[Sequence[int]], block_size: int, is_padded: bool
    ) -> list[_Bunch]:
        bunches: dict[tuple[int, ...], list[_Piece]] = defaultdict(list)
        for piece in _pieces(batch, group.window):
            # The same power of two of keys: at most half of what a bunch gathers is padding.
            key = (piece.num_rows, piece.num_padded_keys.bit_length())
            bunches[key if piece.num_rows <= _MAX_BUNCHED_ROWS else (piece.first_row,)].append(piece)
        num_copies = self._num_heads // group.num_kv_heads
        is_alone = len(bunches) == 1
        return [
            self._bunch(pieces, group.window, tables, block_size, num_copies, is_padded, is_alone)
            for pieces in bunches.values()
        ]

    def _bunch(
        self,
        pieces: list[_Piece],
        window: int | None,
        tables: Sequence[Sequence[int]],
        block_size: int,
        num_copies: int,
        is_padded: bool,
        is_alone: bool,
    ) -> _Bunch:
        num_rows, num_keys = pieces[0].num_rows, max(piece.num_padded_keys for piece in pieces)
        block_ids = [_blocks_read(tables[piece.seq_index], piece, block_size) for piece in pieces]
        width = max(map(len, block_ids))
        table = self._tensor([ids + [0] * (width - len(ids)) for ids in block_ids])  # [num_seqs, width]
        bounds = self._tensor(
            [(_round_down(piece.first_key), piece.first_key, piece.last_key, piece.start) for piece in pieces]
        )
        origin, first, last, start = bounds.unsqueeze(-1).unbind(1)  # [num_seqs, 1] each

        keys = origin + torch.arange(num_keys, device=self._device)  # [num_seqs, num_keys]
        # Padding reads a slot that is read anyway: masked or not, it must hold finite numbers.
        held = keys.clamp(first, last)
        block_index = held // block_size
        slots = table.gather(1, block_index - first // block_size) * block_size + held % block_size

        rows = torch.arange(num_rows, device=self._device)
        queries = (start + rows).unsqueeze(-1)  # [num_seqs, num_rows, 1]
        if is_padded:
            queries = queries.expand(1, 2, 1)
        hidden = (keys > last).unsqueeze(1) | (keys.unsqueeze(1) > queries)  # [num_seqs, num_rows, num_keys]
        if window is not None:
            hidden |= keys.unsqueeze(1) <= queries - window
        mask = torch.zeros(hidden.shape, dtype=self._dtype, device=self._device).masked_fill_(hidden, -inf)
        step_rows = None
        if not is_alone:
            step_rows = self._tensor(
                [row for piece in pieces for row in range(piece.first_row, piece.first_row + num_rows)]
            )
        return _Bunch(
            num_seqs=len(pieces),
            num_rows=mask.shape[1],
            slots=slots.flatten(),
            mask=mask.repeat_interleave(num_copies, dim=1).unsqueeze(1),
            rows=step_rows,
        )

    def _tensor(self, values: Sequence[int] | Sequence[Sequence[int]]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)


def _attend_bunch(
    query: torch.Tensor,  # [num_seqs * num_rows, num_heads, head_dim]
    kv: torch.Tensor,  # [num_slots, 2, num_kv_heads, head_dim]
    bunch: _Bunch,
) -> torch.Tensor:  # [num_seqs * num_rows, num_heads, head_dim]
    _, num_heads, head_dim = query.shape
    num_kv_heads = kv.shape[2]
    split = (bunch.num_seqs, bunch.num_rows, num_kv_heads, num_heads // num_kv_heads, head_dim)
    gathered = kv.index_select(0, bunch.slots).view(bunch.num_seqs, -1, 2, num_kv_heads, head_dim)
    keys, values = gathered.permute(2, 0, 3, 1, 4).unbind(0)  # [num_seqs, num_kv_heads, num_keys, head_dim]
    rows = query.reshape(split).transpose(1, 2).reshape(bunch.num_seqs, num_kv_heads, -1, head_dim)
    output = F.scaled_dot_product_attention(rows, keys, values, attn_mask=bunch.mask, scale=1.0)
    output = output.view(bunch.num_seqs, num_kv_heads, *split[1:2], *split[3:]).transpose(1, 2)
    return output.reshape(query.shape)


def _pieces(batch: QueryBatch, window: int | None) -> list[_Piece]:
    pieces = []
    first_row = 0
    for seq_index, length in enumerate(batch.query_lens):
        for offset in range(0, length, _MAX_PIECE_ROWS):
            num_rows = min(_MAX_PIECE_ROWS, length - offset)
            start = batch.start_positions[seq_index] + offset
            first_key = 0 if window is None else max(0, start - window + 1)
            last_key = min(start + num_rows, batch.num_keys[seq_index]) - 1
            assert first_key <= last_key, "a row sees no key"
            pieces.append(_Piece(seq_index, first_row + offset, num_rows, start, first_key, last_key))
        first_row += length
    return pieces


def _blocks_read(block_table: Sequence[int], piece: _Piece, block_size: int) -> list[int]:
    block_ids = list(block_table[piece.first_key // block_size : piece.last_key // block_size + 1])
    assert len(block_ids) == piece.last_key // block_size - piece.first_key // block_size + 1, "a block is missing"
    assert min(block_ids) >= 0, "a visible key lies in a released block"
    return block_ids


def _slots_written(batch: QueryBatch, tables: Sequence[Sequence[int]], block_size: int) -> list[int]:
    slots = []
    for seq_index, length in enumerate(batch.query_lens):
        start, table = batch.start_positions[seq_index], tables[seq_index]
        for position in range(start, start + length):
            is_written = position < batch.num_keys[seq_index]
            slots.append(
                table[position // block_size] * block_size + position % block_size if is_written else _PAD_SLOT_ID
            )
    return slots


def _round_down(position: int) -> int:
    return position - position % _KEY_ALIGNMENT


def _round_up(num_keys: int) -> int:
    return num_keys + -num_keys % _KEY_ALIGNMENT
