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
    keys,  # descriptor of [num_slots, columns], that loads [BLOCK_KEYS, head_dim]
    values,  # descriptor of the same, that loads [BLOCK_KEYS, of it what is summed up]
    key_column,
    value_column,
    table,
    start,  # position of the turn's first key; none of a turn's keys is in another block
    oldest,  # [BLOCK_ROWS] position of the first key that a row sees
    last,  # [BLOCK_ROWS] position of the last one
    KV_BLOCK: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
):
    """Keys and values of a turn, and which row sees which.

    What no row sees is read too, so it must be a number: zero times anything else is none.
    """
    block_id = tl.load(table + start // KV_BLOCK)
    slot = tl.maximum(block_id, 0) * KV_BLOCK + start % KV_BLOCK
    k = keys.load([slot, key_column])
    v = values.load([slot, value_column])
    positions = start + tl.arange(0, BLOCK_KEYS)[None, :]
    is_seen = (positions >= oldest[:, None]) & (positions <= last[:, None])
    # Rows of a sequence that has ended may stand beyond its blocks.
    return k, v, is_seen & (block_id >= 0)


@triton.jit
def take_in(q, k, v, is_seen, key_scale, greatest, total, summed, PRECISION: tl.constexpr):
    """What rows have seen so far, and some more keys: greatest score, sum of weights, weighted sum of values."""
    scores = tl.where(is_seen, tl.dot(q, widened(k, q).T, input_precision=PRECISION) * key_scale, float("-inf"))
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
