"""Attention over a paged cache on a GPU: each sequence's keys are cut into splits, which are computed side by side.

After Dao et al., "Flash-Decoding for long-context inference" (2023), for any number of query rows: a verify of K+1
rows is cut like a decode of one. Query heads that read the same KV head, and the rows of a piece, are rows of one
product, so that keys and values are read once.

Rows are batch-invariant: splits and blocks of keys begin at multiples of their size, counted from position 0, and their
size depends on a row's own position alone. What a row does not see adds exact zeros.
"""

import torch
import triton
import triton.language as tl

BLOCK_KEYS = 32  # keys that one turn of the loop reads


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
):
    piece, kv_head, number = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    about = pieces + piece * 6
    first_row, num_rows, start = tl.load(about), tl.load(about + 1), tl.load(about + 2)
    num_keys, sequence, split_size = tl.load(about + 3), tl.load(about + 4), tl.load(about + 5)
    first_key = tl.maximum(0, start - window + 1)
    end_key = tl.minimum(num_keys, start + num_rows)
    split = first_key // split_size + number
    begin, end = split * split_size, tl.minimum((split + 1) * split_size, end_key)
    if (begin >= end_key) | (num_rows == 0):
        return

    rows = tl.arange(0, BLOCK_ROWS)
    dims = tl.arange(0, HEAD_DIM)
    row, head = rows // GROUP, kv_head * GROUP + rows % GROUP
    is_row = row < num_rows
    query_at = ((first_row + row) * (num_kv_heads * GROUP) + head) * HEAD_DIM
    q = tl.load(query + query_at[:, None] + dims[None, :], mask=is_row[:, None], other=0.0)
    position = start + row

    greatest = tl.full([BLOCK_ROWS], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_ROWS], tl.float32)
    summed = tl.zeros([BLOCK_ROWS, HEAD_DIM], tl.float32)
    begin = tl.maximum(begin, first_key // BLOCK_KEYS * BLOCK_KEYS)
    for block in range(begin, end, BLOCK_KEYS):
        keys = block + tl.arange(0, BLOCK_KEYS)
        is_key = (keys >= first_key) & (keys < end)
        block_id = tl.load(tables + sequence * table_width + keys // KV_BLOCK, mask=is_key, other=0)
        is_key &= block_id >= 0  # rows of a sequence that has ended may stand beyond its blocks
        slot = block_id.to(tl.int64) * KV_BLOCK + keys % KV_BLOCK
        key_at = (slot * 2 * STORED_HEADS + kv_head) * HEAD_DIM
        k = tl.load(kv + key_at[None, :] + dims[:, None], mask=is_key[None, :], other=0.0)
        # Of 8 bits: by way of float32, since straight to bfloat16 is a slow instruction.
        k = k if k.dtype == q.dtype else k.to(tl.float32).to(q.dtype)
        scores = tl.dot(q, k, input_precision=PRECISION) * key_scale
        is_seen = is_key[None, :] & (keys[None, :] <= position[:, None]) & (keys[None, :] > position[:, None] - window)
        scores = tl.where(is_seen, scores, float("-inf"))
        newest = tl.maximum(greatest, tl.max(scores, 1))
        # A row that has seen no key yet has -inf, from which nothing may be subtracted.
        base = tl.where(newest == float("-inf"), 0.0, newest)
        shrink = tl.exp(greatest - base)
        weight = tl.exp(scores - base[:, None])
        total = total * shrink + tl.sum(weight, 1)
        v = tl.load(kv + (key_at + STORED_HEADS * HEAD_DIM)[:, None] + dims[None, :], mask=is_key[:, None], other=0.0)
        v = v if v.dtype == q.dtype else v.to(tl.float32).to(q.dtype)
        summed = summed * shrink[:, None] + tl.dot(weight.to(v.dtype), v, input_precision=PRECISION)
        greatest = newest

    part = ((piece * num_kv_heads + kv_head) * max_splits + number).to(tl.int64) * BLOCK_ROWS + rows
    tl.store(sums + part[:, None] * HEAD_DIM + dims[None, :], summed, mask=is_row[:, None])
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
):
    piece, kv_head, index = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    about = pieces + piece * 6
    first_row, num_rows, start = tl.load(about), tl.load(about + 1), tl.load(about + 2)
    num_keys, split_size = tl.load(about + 3), tl.load(about + 5)
    row = index // GROUP
    if row >= num_rows:
        return
    first_split = tl.maximum(0, start - window + 1) // split_size
    num_splits = (tl.minimum(num_keys, start + num_rows) - 1) // split_size - first_split + 1

    dims = tl.arange(0, HEAD_DIM)
    first = ((piece * num_kv_heads + kv_head) * max_splits).to(tl.int64) * BLOCK_ROWS + index
    greatest = float("-inf")
    for number in range(0, num_splits):
        greatest = tl.maximum(greatest, tl.load(weights + (first + number * BLOCK_ROWS) * 2))
    total = 0.0
    summed = tl.zeros([HEAD_DIM], tl.float32)
    for number in range(0, num_splits):
        part = first + number * BLOCK_ROWS
        scale = tl.exp(tl.load(weights + part * 2) - greatest)
        total += tl.load(weights + part * 2 + 1) * scale
        summed += tl.load(sums + part * HEAD_DIM + dims) * scale
    at = ((first_row + row) * (num_kv_heads * GROUP) + kv_head * GROUP + index % GROUP).to(tl.int64) * HEAD_DIM
    tl.store(output + at + dims, (summed / total * value_scale).to(output.dtype.element_ty))


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
    shape = (num_pieces, num_kv_heads, max_splits, block_rows)
    sums = torch.empty((*shape, head_dim), dtype=torch.float32, device=query.device)
    weights = torch.empty((*shape, 2), dtype=torch.float32, device=query.device)
    output = torch.empty_like(query)
    _attend_splits[(num_pieces, num_kv_heads, max_splits)](
        query,
        kv,
        pieces,
        tables,
        sums,
        weights,
        tables.shape[1],
        max_splits,
        window,
        key_scale,
        num_kv_heads=num_kv_heads,
        STORED_HEADS=stored_heads,
        GROUP=group,
        HEAD_DIM=head_dim,
        KV_BLOCK=block_size,
        BLOCK_ROWS=block_rows,
        BLOCK_KEYS=BLOCK_KEYS,
        PRECISION="ieee" if query.dtype == torch.float32 else "tf32",
        num_stages=1 if query.dtype == torch.float32 else 3,
        num_warps=8 if block_rows * head_dim >= 1 << 14 else 4,
    )
    _merge_splits[(num_pieces, num_kv_heads, block_rows)](
        sums,
        weights,
        output,
        pieces,
        max_splits,
        window,
        value_scale,
        num_kv_heads=num_kv_heads,
        GROUP=group,
        HEAD_DIM=head_dim,
        BLOCK_ROWS=block_rows,
    )
    return output
