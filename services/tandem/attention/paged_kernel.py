"""Attention over a paged cache on a GPU: each sequence's keys are cut into splits, which are computed side by side.

After Dao et al., "Flash-Decoding for long-context inference" (2023), for any number of query rows: a verify of K+1
rows is cut like a decode of one. Query heads that read the same KV head, and the rows of a piece, are rows of one
product, so that keys and values are read once.

Rows are batch-invariant: splits and turns begin at multiples of their size, counted from position 0, and their size
depends on a row's own position alone (`splits`). What a row does not see adds exact zeros.

Kernels overlap (`overlap`): plans are older than the kernel before, and are read while that one ends.
"""

import torch
import triton
import triton.language as tl

from tandem.attention.overlap import is_overlapping
from tandem.attention.plan_kernel import PIECE_SIZE
from tandem.attention.turn_kernel import nothing_seen, read_turn, shares, take_in

WHOLE_FROM = 128  # programs: as many as keep a GPU busy with a whole piece each
_MAX_WHOLE_SPLITS = 16  # of a piece: longer ones would keep the others waiting
_MAX_WHOLE_NUMBERS = 1 << 13  # of a program's sums, of which it then has two
_MERGED_AT_ONCE = 8  # splits whose sums are on their way together


@triton.jit
def _read_piece(pieces, piece):
    """First row, rows, position, visible keys, sequence, split size."""
    about = pieces + piece * PIECE_SIZE
    return (
        tl.load(about), tl.load(about + 1), tl.load(about + 2), tl.load(about + 3), tl.load(about + 4),
        tl.load(about + 5),
    )  # fmt: skip


@triton.jit
def _read_queries(
    query,  # [T, num_heads, HEAD_DIM]
    first_row,
    num_rows,
    start,  # position of the first row
    kv_head,
    num_kv_heads: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
):
    """A piece's queries of a KV head [BLOCK_ROWS, HEAD_DIM] and their places, which of them there are, positions."""
    rows, dims = tl.arange(0, BLOCK_ROWS), tl.arange(0, HEAD_DIM)
    row, head = rows // GROUP, kv_head * GROUP + rows % GROUP
    is_row = row < num_rows
    cells = (((first_row + row) * (num_kv_heads * GROUP) + head) * HEAD_DIM)[:, None] + dims[None, :]
    return tl.load(query + cells, mask=is_row[:, None], other=0.0), cells, is_row, start + row


@triton.jit
def _attend_splits(
    query,  # [T, num_heads, HEAD_DIM]
    kv,  # [num_slots, 2, STORED_HEADS, HEAD_DIM], as the query or of 8 bits; the first num_kv_heads are read
    pieces,  # [P, 6] int32: first row, rows, position, visible keys, sequence, split size
    tables,  # [S, table_width] int32
    sums,  # [P, num_kv_heads, max_splits, BLOCK_ROWS, HEAD_DIM] float32: of values, weighted
    weights,  # [P, num_kv_heads, max_splits, BLOCK_ROWS, 2] float32: greatest score, sum of weights
    table_width,
    max_splits,
    window,
    key_scale,
    num_kv_heads: tl.constexpr,
    STORED_HEADS: tl.constexpr,
    GROUP: tl.constexpr,  # query heads a KV head
    HEAD_DIM: tl.constexpr,
    KV_BLOCK: tl.constexpr,  # tokens of a KV block
    BLOCK_ROWS: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    PRECISION: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    piece, kv_head, number = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    first_row, num_rows, start, num_keys, sequence, split_size = _read_piece(pieces, piece)
    first_key = tl.maximum(0, start - window + 1)
    end_key = tl.minimum(num_keys, start + num_rows)
    begin = (first_key // split_size + number) * split_size
    end = begin + split_size
    if (begin >= end_key) | (num_rows == 0):
        return
    begin = tl.maximum(begin, first_key // BLOCK_KEYS * BLOCK_KEYS)
    end = tl.minimum(end, end_key)
    table = tables + sequence.to(tl.int64) * table_width
    if OVERLAPS:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()

    q, _, is_row, position = _read_queries(
        query, first_row, num_rows, start, kv_head, num_kv_heads, GROUP, HEAD_DIM, BLOCK_ROWS
    )
    greatest, total, summed = nothing_seen(BLOCK_ROWS, HEAD_DIM)
    for block in range(begin, end, BLOCK_KEYS):
        k, v, is_seen = read_turn(
            kv, table, block, first_key, end, position, window, kv_head, STORED_HEADS, HEAD_DIM, KV_BLOCK, BLOCK_KEYS
        )
        greatest, total, summed = take_in(q, k, v, is_seen, key_scale, greatest, total, summed, PRECISION)

    part = ((piece * num_kv_heads + kv_head) * max_splits + number).to(tl.int64) * BLOCK_ROWS
    part += tl.arange(0, BLOCK_ROWS)
    tl.store(sums + part[:, None] * HEAD_DIM + tl.arange(0, HEAD_DIM)[None, :], summed, mask=is_row[:, None])
    tl.store(weights + part * 2, greatest, mask=is_row)
    tl.store(weights + part * 2 + 1, total, mask=is_row)


@triton.jit
def _merge_splits(
    sums,  # [P, num_kv_heads, max_splits, BLOCK_ROWS, HEAD_DIM] float32
    weights,  # [P, num_kv_heads, max_splits, BLOCK_ROWS, 2] float32
    output,  # [T, num_heads, HEAD_DIM]
    pieces,  # [P, 6] int32
    max_splits,
    window,
    value_scale,
    num_kv_heads: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    AT_ONCE: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    piece, kv_head, index = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    first_row, num_rows, start, num_keys, _, split_size = _read_piece(pieces, piece)
    row = index // GROUP
    if row >= num_rows:
        return
    first_split = tl.maximum(0, start - window + 1) // split_size
    num_splits = (tl.minimum(num_keys, start + num_rows) - 1) // split_size - first_split + 1
    if OVERLAPS:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()

    dims = tl.arange(0, HEAD_DIM)
    first = ((piece * num_kv_heads + kv_head) * max_splits).to(tl.int64) * BLOCK_ROWS + index
    greatest = float("-inf")
    total = 0.0
    summed = tl.zeros([HEAD_DIM], tl.float32)
    for turn in range(0, num_splits, AT_ONCE):
        # In the order of the keys; loads of a turn do not wait for each other.
        for other in tl.static_range(AT_ONCE):
            is_split = num_splits > turn + other
            part = first + (turn + other) * BLOCK_ROWS
            new_greatest = tl.load(weights + part * 2, mask=is_split, other=float("-inf"))
            new_total = tl.load(weights + part * 2 + 1, mask=is_split, other=0.0)
            num_dims = tl.where(is_split, HEAD_DIM, 0)
            new_summed = tl.load(sums + part * HEAD_DIM + dims, mask=dims < num_dims, other=0.0)
            greatest, old_share, new_share = shares(greatest, new_greatest)
            total = tl.fma(total, old_share, new_total * new_share)
            summed = tl.fma(summed, old_share, new_summed * new_share)
    at = ((first_row + row) * (num_kv_heads * GROUP) + kv_head * GROUP + index % GROUP).to(tl.int64) * HEAD_DIM
    tl.store(output + at + dims, (summed / total * value_scale).to(output.dtype.element_ty))


@triton.jit
def _attend_whole(
    query,  # [T, num_heads, HEAD_DIM]
    kv,  # [num_slots, 2, STORED_HEADS, HEAD_DIM], as the query or of 8 bits; the first num_kv_heads are read
    pieces,  # [P, 6] int32: first row, rows, position, visible keys, sequence, split size
    tables,  # [S, table_width] int32
    output,  # [T, num_heads, HEAD_DIM]
    table_width,
    window,
    key_scale,
    value_scale,
    num_kv_heads: tl.constexpr,
    STORED_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    KV_BLOCK: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    PRECISION: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    """All splits of a piece, one after the other, where there are programs enough: what the other two give, bit for
    bit, without a sum in memory."""
    piece, kv_head = tl.program_id(0), tl.program_id(1)
    first_row, num_rows, start, num_keys, sequence, split_size = _read_piece(pieces, piece)
    first_key = tl.maximum(0, start - window + 1)
    end = tl.minimum(num_keys, start + num_rows)
    table = tables + sequence.to(tl.int64) * table_width
    begin = first_key // BLOCK_KEYS * BLOCK_KEYS
    if OVERLAPS:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()

    q, cells, is_row, position = _read_queries(
        query, first_row, num_rows, start, kv_head, num_kv_heads, GROUP, HEAD_DIM, BLOCK_ROWS
    )
    greatest, total, summed = nothing_seen(BLOCK_ROWS, HEAD_DIM)
    new_greatest, new_total, new_summed = greatest, total, summed  # of the present split
    for block in range(begin, end, BLOCK_KEYS):
        k, v, is_seen = read_turn(
            kv, table, block, first_key, end, position, window, kv_head, STORED_HEADS, HEAD_DIM, KV_BLOCK, BLOCK_KEYS
        )
        new_greatest, new_total, new_summed = take_in(
            q, k, v, is_seen, key_scale, new_greatest, new_total, new_summed, PRECISION
        )
        if ((block + BLOCK_KEYS) % split_size == 0) | (block + BLOCK_KEYS >= end):
            greatest, old_share, new_share = shares(greatest, new_greatest)
            total = tl.fma(total, old_share, new_total * new_share)
            summed = tl.fma(summed, old_share[:, None], new_summed * new_share[:, None])
            new_greatest, new_total, new_summed = nothing_seen(BLOCK_ROWS, HEAD_DIM)
    value = (summed / total[:, None] * value_scale).to(output.dtype.element_ty)
    tl.store(output + cells, value, mask=is_row[:, None])


def attend_paged(
    query: torch.Tensor,  # [T, num_heads, head_dim]
    kv: torch.Tensor,  # [num_slots, 2, num_kv_heads, head_dim], as the query or of 8 bits; heads may follow them
    pieces: torch.Tensor,  # [P, 6] int32: first row, rows, position, visible keys, sequence, split size
    tables: torch.Tensor,  # [S, W] int32
    *,
    block_size: int,
    block_rows: int,  # query heads times rows that a piece has at most; a power of two, at least 16
    max_splits: int,
    window: int,
    key_scale: float = 1.0,
    value_scale: float = 1.0,
) -> torch.Tensor:  # [T, num_heads, head_dim]
    """Softmax(q k) v of every row of every piece. Does not wait for the device."""
    num_heads, head_dim = query.shape[1:]
    num_kv_heads, num_pieces = kv.shape[2], pieces.shape[0]
    group = num_heads // num_kv_heads
    stored_heads = kv.stride(1) // head_dim
    assert kv.stride() == (2 * stored_heads * head_dim, stored_heads * head_dim, head_dim, 1)
    output = torch.empty_like(query)
    overlaps = is_overlapping(query.device)
    shape = {
        "num_kv_heads": num_kv_heads,
        "GROUP": group,
        "HEAD_DIM": head_dim,
        "BLOCK_ROWS": block_rows,
        "OVERLAPS": overlaps,
        "launch_pdl": overlaps,
    }
    block_keys, num_warps, num_stages = _manner_of(block_rows * head_dim, head_dim, query.dtype)
    reading = {
        "STORED_HEADS": stored_heads,
        "KV_BLOCK": block_size,
        "BLOCK_KEYS": block_keys,
        "PRECISION": "ieee" if query.dtype == torch.float32 else "tf32",
        "num_stages": num_stages,
        "num_warps": num_warps,
    }
    can_be_whole = max_splits <= _MAX_WHOLE_SPLITS and block_rows * head_dim <= _MAX_WHOLE_NUMBERS
    if can_be_whole and num_pieces * num_kv_heads >= WHOLE_FROM:
        _attend_whole[(num_pieces, num_kv_heads)](
            query, kv, pieces, tables, output, tables.shape[1], window, key_scale, value_scale, **shape, **reading
        )
        return output
    sizes = (num_pieces, num_kv_heads, max_splits, block_rows)
    sums = torch.empty((*sizes, head_dim), dtype=torch.float32, device=query.device)
    weights = torch.empty((*sizes, 2), dtype=torch.float32, device=query.device)
    _attend_splits[(num_pieces, num_kv_heads, max_splits)](
        query, kv, pieces, tables, sums, weights, tables.shape[1], max_splits, window, key_scale,
        **shape, **reading,
    )  # fmt: skip
    _merge_splits[(num_pieces, num_kv_heads, block_rows)](
        sums, weights, output, pieces, max_splits, window, value_scale,
        AT_ONCE=_MERGED_AT_ONCE, num_warps=max(1, head_dim // 128), **shape,
    )  # fmt: skip
    return output


def _manner_of(numbers: int, head_dim: int, dtype: torch.dtype) -> tuple[int, int, int]:
    """Keys of a turn, warps and stages, by the numbers that a program sums up. The same for split and whole pieces.

    Measured on an H100 with the heads of 31B and its drafter.
    """
    if dtype == torch.float32:
        return max(16, min(32, (1 << 13) // head_dim)), 8 if numbers >= 1 << 14 else 4, 1
    return 64 if numbers <= 1 << 12 else 32, 8, 3
