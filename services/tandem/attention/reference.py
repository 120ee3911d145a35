"""Attention in plain torch: what other backends are compared with, and the fast path on a CPU.

A step is cut into pieces: runs of rows of one sequence. Pieces of similar length and reach form a bunch, and a bunch
costs one gather and one `scaled_dot_product_attention` a layer. Query heads that read the same KV head become rows of
one product, so that keys and values are never repeated.

If it is to be batch-invariant, a row's result does not depend on which other rows the step has (measured: bit for bit
in float32 with MKL on AVX-512, on one thread and on two; not on AVX2). Sums over keys then meet them in the same order
and in the same groups, whatever follows or precedes, since keys are counted from and to a multiple of what torch and
MKL sum at once; and no product has a single row, which BLAS computes by another routine (as long as several query heads
read each KV head, which holds for every Gemma 4).
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
from tandem.kv_cache.scales import UNSCALED, KvScales
from tandem.kv_cache.storage import widen_kv

_BUNCHED_ROWS = (4, 8, 16)  # pieces of up to so many rows share a bunch, padded to the longest; longer ones are alone
_MAX_PIECE_ROWS = 128  # bounds the mask of a long prefill chunk
_LANES = 16  # of a 512-bit register
_CHUNK_KEYS = 512  # torch's attention on a CPU works through the keys in chunks,
_UNCUT_KEYS = 384  # and MKL sums so many of a chunk in one go, or else cuts it
_SHORT_WINDOW = _UNCUT_KEYS - _MAX_PIECE_ROWS - 2 * _LANES  # all keys of a piece are summed in one go


@dataclass(frozen=True)
class _Piece:
    """Rows of one sequence, and the keys that any of them may see."""

    seq_index: int
    first_row: int
    num_rows: int
    start: int  # position of the first row
    first_key: int
    last_key: int
    key_alignment: int

    @property
    def origin(self) -> int:
        """Where gathering starts: at the first key or a little before it."""
        return self.first_key - self.first_key % self.key_alignment

    @property
    def num_padded_keys(self) -> int:
        """Keys to gather."""
        num_chunks, num_keys = divmod(self.last_key + 1 - self.origin, _CHUNK_KEYS)
        is_cut = self.key_alignment == _CHUNK_KEYS and num_keys > _UNCUT_KEYS
        return num_chunks * _CHUNK_KEYS + (_CHUNK_KEYS if is_cut else num_keys + -num_keys % _LANES)

    @property
    def reach(self) -> tuple[int, ...]:
        """Pieces of equal reach may be padded to the longest among them: it costs little and changes no sum."""
        num_keys = self.num_padded_keys
        if self.key_alignment == _CHUNK_KEYS:
            return (num_keys - 1) // _CHUNK_KEYS, num_keys % _CHUNK_KEYS > 0
        return (num_keys.bit_length(),)


@dataclass(frozen=True)
class _Bunch:
    """Pieces that are attended together, each padded to `num_rows` rows by its last one."""

    num_seqs: int
    num_rows: int
    num_keys: int
    slots: torch.Tensor  # [num_seqs * num_keys] int64
    mask: torch.Tensor  # [num_seqs, 1, num_rows * G, num_keys], 0 or -inf
    rows: torch.Tensor | None  # [num_seqs * num_rows] int64, of the step; None: all of them, in order
    kept: torch.Tensor | None  # [R] int64: those that are no padding; None: all
    written: torch.Tensor | None  # [R] int64: their rows of the step


class ReferenceBackend:
    """`AttentionBackend` for any device that torch runs on."""

    def __init__(
        self,
        num_heads: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        is_batch_invariant: bool = True,
    ) -> None:
        """Plans for networks of one shape.

        Args:
            num_heads: query heads of every layer.
            device: where plans are made.
            dtype: of queries, keys and values.
            is_batch_invariant: spend a few percent on rows that round the same in any step; a step of one row is
                then run as two equal rows. A drafter, whose rounding cannot reach the text, is faster without.
        """
        self._num_heads = num_heads
        self._device = torch.device(device)
        self._dtype = dtype
        self._is_batch_invariant = is_batch_invariant

    @torch.inference_mode()
    def prepare(self, batch: QueryBatch, groups: Iterable[KvGroup], block_size: int) -> AttentionMetadata:
        """Plans a step for `groups`, whose names `batch.block_tables` must have."""
        copies = 2 if self._is_batch_invariant and batch.num_tokens == 1 else 1
        positions = list(batch.positions()) * copies
        slot_mapping, plans = {}, {}
        for group in groups:
            tables = batch.block_tables[group.name]
            plans[group.name] = self._plan(batch, group, tables, block_size)
            slot_mapping[group.name] = self._tensor(list(batch.slots_written(group.name, block_size)) * copies)
        return AttentionMetadata(batch.num_tokens, self._tensor(positions), slot_mapping, plans)

    def attend(
        self,
        query: torch.Tensor,  # [num_rows, num_heads, head_dim]
        kv: torch.Tensor,  # [num_slots, 2, num_kv_heads, head_dim]
        plan: Sequence[_Bunch],
        scales: KvScales = UNSCALED,
    ) -> torch.Tensor:  # [num_rows, num_heads, head_dim]
        """One gather and one product pair a bunch. The second of two equal rows is a view of the first."""
        if len(plan) == 1 and plan[0].rows is None:
            num_planned = plan[0].num_seqs * plan[0].num_rows
            if num_planned < query.shape[0]:
                return _attend_bunch(query.narrow(0, 0, num_planned), kv, plan[0], scales).expand(query.shape)
            return _attend_bunch(query, kv, plan[0], scales)
        output = torch.empty_like(query)
        for bunch in plan:
            assert bunch.rows is not None and bunch.written is not None
            attended = _attend_bunch(query.index_select(0, bunch.rows), kv, bunch, scales)
            if bunch.kept is not None:
                attended = attended.index_select(0, bunch.kept)
            output.index_copy_(0, bunch.written, attended)
        return output

    def _plan(
        self, batch: QueryBatch, group: KvGroup, tables: Sequence[Sequence[int]], block_size: int
    ) -> list[_Bunch]:
        bunches: dict[tuple[int, ...], list[_Piece]] = defaultdict(list)
        for piece in _pieces(batch, group.window, self._key_alignment(group.window)):
            most = next((most for most in _BUNCHED_ROWS if piece.num_rows <= most), None)
            bunches[(piece.first_row,) if most is None else (most, *piece.reach)].append(piece)
        num_copies = self._num_heads // group.num_kv_heads
        is_alone = len(bunches) == 1 and len({piece.num_rows for pieces in bunches.values() for piece in pieces}) == 1
        return [
            self._bunch(pieces, group.window, tables, block_size, num_copies, is_alone) for pieces in bunches.values()
        ]

    def _bunch(
        self,
        pieces: list[_Piece],
        window: int | None,
        tables: Sequence[Sequence[int]],
        block_size: int,
        num_copies: int,
        is_alone: bool,
    ) -> _Bunch:
        num_rows, num_keys = max(piece.num_rows for piece in pieces), max(piece.num_padded_keys for piece in pieces)
        block_ids = [_blocks_read(tables[piece.seq_index], piece, block_size) for piece in pieces]
        width = max(map(len, block_ids))
        table = self._tensor([ids + [0] * (width - len(ids)) for ids in block_ids])  # [num_seqs, width]
        bounds = self._tensor(
            [(piece.origin, piece.first_key, piece.last_key, piece.start, piece.num_rows - 1) for piece in pieces]
        )
        origin, first, last, start, last_row = bounds.unsqueeze(-1).unbind(1)  # [num_seqs, 1] each

        keys = origin + torch.arange(num_keys, device=self._device)  # [num_seqs, num_keys]
        # Padding reads a slot that is read anyway: masked or not, it must hold finite numbers.
        held = keys.clamp(first, last)
        block_index = held // block_size
        slots = table.gather(1, block_index - first // block_size) * block_size + held % block_size

        rows = torch.arange(num_rows, device=self._device).minimum(last_row)  # [num_seqs, num_rows]
        queries = (start + rows).unsqueeze(-1)  # [num_seqs, num_rows, 1]
        hidden = keys.unsqueeze(1) > torch.minimum(queries, last.unsqueeze(1))  # [num_seqs, num_rows, num_keys]
        if window is not None:
            hidden |= keys.unsqueeze(1) <= queries - window
        mask = torch.where(hidden, -inf, 0.0).to(self._dtype).unsqueeze(2).expand(-1, -1, num_copies, -1)
        step_rows = kept = written = None
        if not is_alone:
            step_rows = (self._tensor([[piece.first_row] for piece in pieces]) + rows).flatten()
            written = self._tensor([piece.first_row + row for piece in pieces for row in range(piece.num_rows)])
            if len(written) < len(step_rows):
                kept = self._tensor(
                    [index * num_rows + row for index, piece in enumerate(pieces) for row in range(piece.num_rows)]
                )
        return _Bunch(
            num_seqs=len(pieces),
            num_rows=num_rows,
            num_keys=num_keys,
            slots=slots.flatten(),
            mask=mask.reshape(len(pieces), 1, -1, num_keys),
            rows=step_rows,
            kept=kept,
            written=written,
        )

    def _key_alignment(self, window: int | None) -> int:
        if not self._is_batch_invariant or (window is not None and window <= _SHORT_WINDOW):
            return _LANES
        return _CHUNK_KEYS

    def _tensor(self, values: Sequence[int] | Sequence[Sequence[int]]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)


def _attend_bunch(
    query: torch.Tensor,  # [num_seqs * num_rows, num_heads, head_dim]
    kv: torch.Tensor,  # [num_slots, 2, num_kv_heads, head_dim]
    bunch: _Bunch,
    scales: KvScales,
) -> torch.Tensor:  # [num_seqs * num_rows, num_heads, head_dim]
    """Views are made by strides where that takes fewer of them: on a CPU, a view costs as much as a sum."""
    num_seqs, num_rows = bunch.num_seqs, bunch.num_rows
    _, _, num_kv_heads, head_dim = kv.shape
    entry = num_kv_heads * head_dim
    gathered = kv.index_select(0, bunch.slots)  # [num_seqs * num_keys, 2, num_kv_heads, head_dim]
    if gathered.dtype != query.dtype:
        gathered = widen_kv(gathered, query.dtype, scales)
    size = (num_seqs, num_kv_heads, bunch.num_keys, head_dim)
    stride = (bunch.num_keys * 2 * entry, head_dim, 2 * entry, 1)
    keys, values = gathered.as_strided(size, stride, 0), gathered.as_strided(size, stride, entry)
    if num_rows == 1:
        rows = query.view(num_seqs, num_kv_heads, -1, head_dim)
        return F.scaled_dot_product_attention(rows, keys, values, attn_mask=bunch.mask, scale=1.0).reshape(query.shape)
    rows = query.view(num_seqs, num_rows, num_kv_heads, -1, head_dim).transpose(1, 2)
    rows = rows.reshape(num_seqs, num_kv_heads, -1, head_dim)
    output = F.scaled_dot_product_attention(rows, keys, values, attn_mask=bunch.mask, scale=1.0)
    output = output.view(num_seqs, num_kv_heads, num_rows, -1, head_dim).transpose(1, 2)
    return output.reshape(query.shape)


def _pieces(batch: QueryBatch, window: int | None, key_alignment: int) -> list[_Piece]:
    """Cuts the step. Rows whose last chunk of keys is summed in one go stay apart from rows where it is not."""
    pieces = []
    first_row = 0
    for start, length, num_keys, seq_index in zip(
        batch.start_positions, batch.query_lens, batch.num_keys, range(batch.num_seqs), strict=True
    ):
        position, end = start, start + length
        while position < end:
            stop = min(end, position + _MAX_PIECE_ROWS)
            if key_alignment == _CHUNK_KEYS:
                stop = min(stop, position + ((_UNCUT_KEYS - position) % _CHUNK_KEYS or _CHUNK_KEYS))
            first_key = 0 if window is None else max(0, position - window + 1)
            last_key = min(stop, num_keys) - 1
            assert first_key <= last_key, "a row sees no key"
            row = first_row + position - start
            pieces.append(_Piece(seq_index, row, stop - position, position, first_key, last_key, key_alignment))
            position = stop
        first_row += length
    return pieces


def _blocks_read(block_table: Sequence[int], piece: _Piece, block_size: int) -> list[int]:
    block_ids = list(block_table[piece.first_key // block_size : piece.last_key // block_size + 1])
    assert len(block_ids) == piece.last_key // block_size - piece.first_key // block_size + 1, "a block is missing"
    assert min(block_ids) >= 0, "a visible key lies in a released block"
    return block_ids
