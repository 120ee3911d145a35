"""One turn of attention's loop: some keys and values are read, and taken into what rows have seen.

What rows have seen is the greatest score, the sum of weights relative to it, and the weighted sum of values (Milakov
and Gimelshein, "Online normalizer calculation for softmax", 2018).
"""

import triton
import triton.language as tl

from tandem.attention.widen_kernel import widened


@triton.jit
def nothing_seen(BLOCK_ROWS: tl.constexpr, HEAD_DIM: tl.constexpr):
    """Of rows that have seen no key yet: greatest score, sum of weights, weighted sum of values."""
    return (
        tl.full([BLOCK_ROWS], float("-inf"), tl.float32),
        tl.zeros([BLOCK_ROWS], tl.float32),
        tl.zeros([BLOCK_ROWS, HEAD_DIM], tl.float32),
    )


@triton.jit
def read_turn(
    kv,
    table,
    block,  # position of the turn's first key
    first_key,
    end,
    position,  # [BLOCK_ROWS] of rows
    window,
    kv_head,
    STORED_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    KV_BLOCK: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
):
    """Keys and values of a turn, and which row sees which."""
    dims = tl.arange(0, HEAD_DIM)
    keys = block + tl.arange(0, BLOCK_KEYS)
    is_key = (keys >= first_key) & (keys < end)
    block_id = tl.load(table + keys // KV_BLOCK, mask=is_key, other=0)
    is_key &= block_id >= 0  # rows of a sequence that has ended may stand beyond its blocks
    slot = block_id.to(tl.int64) * KV_BLOCK + keys % KV_BLOCK
    key_at = (slot * 2 * STORED_HEADS + kv_head) * HEAD_DIM
    value_at = key_at + STORED_HEADS * HEAD_DIM
    k = tl.load(kv + key_at[None, :] + dims[:, None], mask=is_key[None, :], other=0.0)
    v = tl.load(kv + value_at[:, None] + dims[None, :], mask=is_key[:, None], other=0.0)
    is_seen = is_key[None, :] & (keys[None, :] <= position[:, None]) & (keys[None, :] > position[:, None] - window)
    return k, v, is_seen


@triton.jit
def take_in(q, k, v, is_seen, key_scale, greatest, total, summed, PRECISION: tl.constexpr):
    """What rows have seen so far, and some more keys: greatest score, sum of weights, weighted sum of values."""
    scores = tl.where(is_seen, tl.dot(q, widened(k, q), input_precision=PRECISION) * key_scale, float("-inf"))
    newest = tl.maximum(greatest, tl.max(scores, 1))
    # A row that has seen no key yet has -inf, from which nothing may be subtracted.
    base = tl.where(newest == float("-inf"), 0.0, newest)
    shrink = tl.exp(greatest - base)
    weight = tl.exp(scores - base[:, None])
    summed = summed * shrink[:, None] + tl.dot(weight.to(q.dtype), widened(v, q), input_precision=PRECISION)
    return newest, total * shrink + tl.sum(weight, 1), summed


@triton.jit
def shares(greatest, new_greatest):
    """Of two groups of keys by their greatest scores: that of both, and what the sums of each count for."""
    newest = tl.maximum(greatest, new_greatest)
    base = tl.where(newest == float("-inf"), 0.0, newest)
    return newest, tl.exp(greatest - base), tl.exp(new_greatest - base)
