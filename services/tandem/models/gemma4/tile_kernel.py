"""How a program of a product of few rows begins and ends, whatever format its weights have.

A program has a tile of outputs, over one part of the inner dimension. Its weights depend on no kernel before it, so the
first of them are on their way to the cache while that one ends. The parts of a tile leave their sums in float32, and
whichever ends last adds them up, from the first part to the last, so that a row rounds the same however they ran.
"""

import triton
import triton.language as tl


@triton.jit
def announce_weights(
    memory,  # where the matrix [out_features, in_features] begins
    outs,  # [BLOCK_OUT] of the tile
    start,  # of the part
    out_features,
    in_features,
    NUM_LINES: tl.constexpr,  # of each output
    LINE: tl.constexpr,  # weights in a line of the cache
):
    """Has the first lines of each output's weights brought to the cache."""
    lines = outs[:, None].to(tl.int64) * in_features + start + LINE * tl.arange(0, NUM_LINES)[None, :]
    lines = memory + tl.minimum(lines, tl.cast(out_features, tl.int64) * in_features - 1)
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.b32 $0, 0;", "=r,l", [lines], dtype=tl.int32, is_pure=False, pack=1
    )


@triton.jit
def write_tile(
    sums,  # [BLOCK_OUT, BLOCK_ROWS] float32, of this part
    scales,  # [out_features] float32 that outputs are multiplied by, or None
    output,  # [num_rows, out_features]
    partials,  # [NUM_SPLITS, num_rows, out_features] float32, where there are several parts
    arrivals,  # [tiles] int32: how many parts of each have ended; zeros between products
    outs,  # [BLOCK_OUT] of the tile
    num_rows,
    out_features,
    NUM_SPLITS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,  # at least num_rows
):
    """Writes the tile's outputs, if no part of it is missing any more."""
    tile, part = tl.program_id(0), tl.program_id(1)
    product = sums.T
    places = tl.arange(0, BLOCK_ROWS)
    cells = places[:, None] * out_features + outs[None, :]
    mask = (places < num_rows)[:, None] & (outs < out_features)[None, :]
    if NUM_SPLITS > 1:
        size = num_rows * out_features
        tl.store(partials + part * size + cells, product, mask=mask)
        tl.debug_barrier()  # all sums of this program are written before one of its threads says so
        is_last = tl.atomic_add(arrivals + tile, 1, sem="acq_rel", scope="gpu") == NUM_SPLITS - 1
        if is_last:
            product = tl.zeros((BLOCK_ROWS, BLOCK_OUT), tl.float32)
            for other in tl.static_range(NUM_SPLITS):
                product += tl.load(partials + other * size + cells, mask=mask, other=0.0, cache_modifier=".cg")
            _store(product, scales, output + cells, outs, mask, out_features)
            tl.store(arrivals + tile, 0)
    else:
        _store(product, scales, output + cells, outs, mask, out_features)


@triton.jit
def _store(product, scales, to, outs, mask, out_features):
    if scales is not None:
        product *= tl.load(scales + outs, mask=outs < out_features, other=0.0)[None, :]
    tl.store(to, product.to(to.dtype.element_ty), mask=mask)
