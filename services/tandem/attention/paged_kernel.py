"""Attention over a paged cache on a GPU: each sequence's keys are cut into splits, which are computed side by side.

After Dao et al., "Flash-Decoding for long-context inference" (2023), for any number of query rows: a verify of K+1
rows is cut like a decode of one. Query heads that read the same KV head, and the rows of a piece, are rows of one
product, so that keys and values are read once.

Rows are batch-invariant: splits and turns begin at multiples of their size, counted from position 0, and their size
depends on a row's own position alone (`splits`). What a row does not see adds exact zeros.

A turn's keys and values are two blocks that the copy engine brings, so that no thread computes addresses.

Kernels overlap (`overlap`): plans are older than the kernel before, and are read while that one ends.
"""

from math import gcd

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from tandem.attention.manner import manner_of
from tandem.attention.overlap import is_overlapping
from tandem.attention.plan_kernel import PIECE_SIZE
from tandem.attention.turn_kernel import nothing_seen, read_turn, shares, take_in

WHOLE_FROM = 128  # programs: as many as keep a GPU busy with a whole piece each
_MAX_WHOLE_SPLITS = 16  # of a piece: longer ones would keep the others waiting
_MAX_WHOLE_NUMBERS = 1 << 13  # of a program's sums, of which it then has two
_SPLIT_PROGRAMS = 264  # two for each multiprocessor: more would begin anew, and most of them find no split
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
    kv_head,
    num_kv_heads: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
):
    """A piece's queries of a KV head [BLOCK_ROWS, HEAD_DIM] and their places, and which of them there are."""
    rows, dims = tl.arange(0, BLOCK_ROWS), tl.arange(0, HEAD_DIM)
    row, head = rows // GROUP, kv_head * GROUP + rows % GROUP
    is_row = row < num_rows
    cells = (((first_row + row) * (num_kv_heads * GROUP) + head) * HEAD_DIM)[:, None] + dims[None, :]
    return tl.load(query + cells, mask=is_row[:, None], other=0.0), cells, is_row


@triton.jit
def _seen_by(start, end, window, GROUP: tl.constexpr, BLOCK_ROWS: tl.constexpr):
    """[BLOCK_ROWS] positions of the first and the last key that each row sees, of keys before `end`."""
    position = start + tl.arange(0, BLOCK_ROWS) // GROUP
    return position - window + 1, tl.minimum(position, end - 1)


@triton.jit
def _attend_splits(
    query,  # [T, num_heads, HEAD_DIM]
    keys,  # descriptor of [num_slots, 2 * STORED_HEADS * HEAD_DIM], as the query or of 8 bits
    values,  # the same, in blocks of VALUE_DIMS
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
    VALUE_DIMS: tl.constexpr,  # of a program, of HEAD_DIM
    KV_BLOCK: tl.constexpr,  # tokens of a KV block
    BLOCK_ROWS: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    PRECISION: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    """Some splits of a piece, those whose number is the program's or further by a multiple of the programs'."""
    PARTS: tl.constexpr = HEAD_DIM // VALUE_DIMS
    piece, kv_head, first_dim = tl.program_id(0), tl.program_id(1) // PARTS, tl.program_id(1) % PARTS * VALUE_DIMS
    first_row, num_rows, start, num_keys, sequence, split_size = _read_piece(pieces, piece)
    first_key = tl.maximum(0, start - window + 1)
    end_key = tl.minimum(num_keys, start + num_rows)
    first_split, end_split = first_key // split_size, tl.cdiv(end_key, split_size)
    if (first_split + tl.program_id(2) >= end_split) | (num_rows == 0):
        return
    oldest, last = _seen_by(start, end_key, window, GROUP, BLOCK_ROWS)
    table = tables + sequence.to(tl.int64) * table_width
    if OVERLAPS:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()

    q, _, is_row = _read_queries(query, first_row, num_rows, kv_head, num_kv_heads, GROUP, HEAD_DIM, BLOCK_ROWS)
    rows, dims = tl.arange(0, BLOCK_ROWS), first_dim + tl.arange(0, VALUE_DIMS)
    for split in range(first_split + tl.program_id(2), end_split, tl.num_programs(2)):
        begin = tl.maximum(split * split_size, first_key // BLOCK_KEYS * BLOCK_KEYS)
        end = tl.minimum((split + 1) * split_size, end_key)
        greatest, total, summed = nothing_seen(BLOCK_ROWS, VALUE_DIMS)
        for turn in range(begin, end, BLOCK_KEYS):
            k, v, is_seen = read_turn(
                keys, values, kv_head * HEAD_DIM, (STORED_HEADS + kv_head) * HEAD_DIM + first_dim,
                table, turn, oldest, last, KV_BLOCK, BLOCK_KEYS,
            )  # fmt: skip
            greatest, total, summed = take_in(q, k, v, is_seen, key_scale, greatest, total, summed, PRECISION)

        part = ((piece * num_kv_heads + kv_head) * max_splits + split - first_split).to(tl.int64) * BLOCK_ROWS + rows
        tl.store(sums + part[:, None] * HEAD_DIM + dims[None, :], summed, mask=is_row[:, None])
        # All parts of the dimensions have the same.
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
    kv,  # descriptor of [num_slots, 2 * STORED_HEADS * HEAD_DIM], as the query or of 8 bits
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
    oldest, last = _seen_by(start, end, window, GROUP, BLOCK_ROWS)
    table = tables + sequence.to(tl.int64) * table_width
    begin = first_key // BLOCK_KEYS * BLOCK_KEYS
    if OVERLAPS:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()

    q, cells, is_row = _read_queries(query, first_row, num_rows, kv_head, num_kv_heads, GROUP, HEAD_DIM, BLOCK_ROWS)
    greatest, total, summed = nothing_seen(BLOCK_ROWS, HEAD_DIM)
    new_greatest, new_total, new_summed = greatest, total, summed  # of the present split
    for turn in range(begin, end, BLOCK_KEYS):
        k, v, is_seen = read_turn(
            kv, kv, kv_head * HEAD_DIM, (STORED_HEADS + kv_head) * HEAD_DIM,
            table, turn, oldest, last, KV_BLOCK, BLOCK_KEYS,
        )  # fmt: skip
        new_greatest, new_total, new_summed = take_in(
            q, k, v, is_seen, key_scale, new_greatest, new_total, new_summed, PRECISION
        )
        if ((turn + BLOCK_KEYS) % split_size == 0) | (turn + BLOCK_KEYS >= end):
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
    width, stored_heads = kv.stride(0), kv.stride(1) // head_dim
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
    manner = manner_of(block_rows, head_dim, query.dtype)
    block_keys = gcd(manner.block_keys, block_size)
    reading = {
        "STORED_HEADS": stored_heads,
        "KV_BLOCK": block_size,
        "BLOCK_KEYS": block_keys,
        "PRECISION": "ieee" if query.dtype == torch.float32 else "tf32",
        "num_stages": manner.num_stages,
        "num_warps": manner.num_warps,
    }

    def blocks_of(num_dims: int) -> TensorDescriptor:
        return TensorDescriptor(kv, [kv.shape[0], width], [width, 1], [block_keys, num_dims])

    keys = blocks_of(head_dim)
    can_be_whole = max_splits <= _MAX_WHOLE_SPLITS and block_rows * head_dim <= _MAX_WHOLE_NUMBERS
    if can_be_whole and num_pieces * num_kv_heads >= WHOLE_FROM:
        _attend_whole[(num_pieces, num_kv_heads)](
            query, keys, pieces, tables, output, tables.shape[1], window, key_scale, value_scale, **shape, **reading
        )
        return output
    sizes = (num_pieces, num_kv_heads, max_splits, block_rows)
    sums = torch.empty((*sizes, head_dim), dtype=torch.float32, device=query.device)
    weights = torch.empty((*sizes, 2), dtype=torch.float32, device=query.device)
    num_columns = num_kv_heads * head_dim // manner.value_dims
    num_at_once = min(max_splits, triton.cdiv(_SPLIT_PROGRAMS, num_pieces * num_columns))
    _attend_splits[(num_pieces, num_columns, num_at_once)](
        query, keys, blocks_of(manner.value_dims), pieces, tables, sums, weights, tables.shape[1], max_splits, window,
        key_scale, VALUE_DIMS=manner.value_dims, **shape, **reading,
    )  # fmt: skip
    _merge_splits[(num_pieces, num_kv_heads, block_rows)](
        sums, weights, output, pieces, max_splits, window, value_scale,
        AT_ONCE=_MERGED_AT_ONCE, num_warps=max(1, head_dim // 128), **shape,
    )  # fmt: skip
    return output
