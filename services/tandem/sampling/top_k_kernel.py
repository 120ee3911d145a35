"""Greedy rows and rows with a small top-k: two kernels that read a row once, and of it again only what matters.

`survey` finds the maximum of every block of neighbours. The best k tokens have a token each in the k blocks with the
greatest maxima, so that none of them lies below the least of these maxima, the row's floor. `gather` collects what
does not lie below it, little more than k tokens, and the last program of a row sorts and filters those.
"""

import triton
import triton.language as tl

from tandem.sampling.choice_kernel import (
    BEST,
    FLOOR,
    INT32_MAX,
    INT32_MIN,
    IS_DONE,
    LOWEST_KEY,
    NUM_CANDIDATES,
    NUM_GATHERED,
    NUM_SURVEYED,
    gumbel_of,
    id_of,
    is_last,
    key_of,
    mass_of,
    ordered_bits,
    ordered_of,
    relative,
    words_of_tokens,
)


@triton.jit
def survey(
    logits,  # [R, V] float32 or bfloat16
    row_stride,
    top_k,  # [R] int64
    maxima,  # [R, num_blocks] int32, written: ordered bits of each block's maximum
    ledger,  # [R, num_columns] int64
    token_ids,  # [R] int64, written for greedy rows
    vocab_size,
    num_blocks,
    num_columns,
    max_top_k,  # greater ones get no floor
    IS_ALL_GREEDY: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,  # blocks read at once
    ALL_BLOCKS: tl.constexpr,  # a power of two, at least num_blocks
):
    """Programs: (some tiles, a row)."""
    row = tl.program_id(1).to(tl.int64)
    logits += row * row_stride
    maxima += row * num_blocks
    ledger += row * num_columns
    place = tl.arange(0, BLOCK)
    for tile in range(tl.program_id(0), tl.cdiv(num_blocks, TILE), tl.num_programs(0)):
        blocks = tile * TILE + tl.arange(0, TILE)
        ids = blocks[:, None] * BLOCK + place[None, :]
        ordered = ordered_bits(tl.load(logits + ids, mask=ids < vocab_size, other=0.0))
        tl.store(maxima + blocks, tl.max(tl.where(ids < vocab_size, ordered, INT32_MIN), 1), mask=blocks < num_blocks)
    if is_last(ledger + NUM_SURVEYED):
        blocks = tl.arange(0, ALL_BLOCKS)
        is_block = blocks < num_blocks
        found = tl.load(maxima + blocks, mask=is_block, other=INT32_MIN, cache_modifier=".cg")
        best = tl.max(found)
        block = tl.min(tl.where((found == best) & is_block, blocks, INT32_MAX))
        ids = block * BLOCK + place
        ordered = ordered_bits(tl.load(logits + ids, mask=ids < vocab_size, other=0.0))
        token_id = tl.min(tl.where((ordered == best) & (ids < vocab_size), ids, INT32_MAX))
        if IS_ALL_GREEDY:
            tl.store(token_ids + row, token_id.to(tl.int64))
        else:
            count = tl.load(top_k + row)
            tl.store(ledger + BEST, key_of(best, token_id))
            if count == 1:
                tl.store(token_ids + row, token_id.to(tl.int64))
                tl.store(ledger + IS_DONE, 1)
            elif count <= max_top_k:
                tl.store(ledger + FLOOR, _floor(found, is_block, best, num_blocks, count))


@triton.jit
def _floor(maxima, is_block, best, num_blocks, count):
    """The `count`-th greatest of the maxima by bisection, int64; below everything if there are fewer."""
    low = tl.min(tl.where(is_block, maxima, INT32_MAX)).to(tl.int64)  # at least `count` maxima are no lower
    high = best.to(tl.int64) + 1  # fewer are no lower
    if num_blocks < count:
        low = tl.full((), INT32_MIN, tl.int64)
        high = low + 1
    while high - low > 1:
        middle = low + (high - low) // 2
        if tl.sum((is_block & (maxima >= middle)).to(tl.int32)) >= count:
            low = middle
        else:
            high = middle
    return low


@triton.jit
def gather(
    logits,  # [R, V] float32 or bfloat16
    row_stride,
    temperature,  # [R] float64
    top_k,  # [R] int64
    top_p,  # [R] float64
    min_p,  # [R] float64
    seeds,  # [R] int64
    positions,  # [R] int64
    maxima,  # [R, num_blocks] int32
    candidates,  # [R, MAX_CANDIDATES] int64, written: keys in any order
    ledger,  # [R, num_columns] int64
    token_ids,  # [R] int64, written
    vocab_size,
    num_blocks,
    num_columns,
    max_top_k,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,  # blocks
    FEW_CANDIDATES: tl.constexpr,  # sorted faster
    MAX_CANDIDATES: tl.constexpr,  # a row with more, all near ties, is left to `settle`
):
    """Programs: (some tiles, a row)."""
    row = tl.program_id(1).to(tl.int64)
    ledger += row * num_columns
    count = tl.load(top_k + row)
    if (count > 1) & (count <= max_top_k):
        logits += row * row_stride
        candidates += row * MAX_CANDIDATES
        floor = tl.load(ledger + FLOOR).to(tl.int32)
        for tile in range(tl.program_id(0), tl.cdiv(num_blocks, TILE), tl.num_programs(0)):
            blocks = tile * TILE + tl.arange(0, TILE)
            found = tl.load(maxima + row * num_blocks + blocks, mask=blocks < num_blocks, other=INT32_MIN)
            if tl.max(found) >= floor:
                ids = tile * TILE * BLOCK + tl.arange(0, TILE * BLOCK)
                ordered = ordered_bits(tl.load(logits + ids, mask=ids < vocab_size, other=0.0))
                is_candidate = (ordered >= floor) & (ids < vocab_size)
                ones = is_candidate.to(tl.int32)
                slots = tl.cumsum(ones, 0) - 1 + tl.atomic_add(ledger + NUM_CANDIDATES, tl.sum(ones).to(tl.int64))
                tl.store(candidates + slots, key_of(ordered, ids), mask=is_candidate & (slots < MAX_CANDIDATES))
        if is_last(ledger + NUM_GATHERED):
            num_candidates = tl.load(ledger + NUM_CANDIDATES, cache_modifier=".cg")
            if num_candidates <= MAX_CANDIDATES:
                scale, mass_share, least_weight = tl.load(temperature + row), tl.load(top_p + row), tl.load(min_p + row)
                seed, position = tl.load(seeds + row), tl.load(positions + row)
                if num_candidates <= FEW_CANDIDATES:
                    token_id = _choose(
                        candidates, num_candidates, count, scale, mass_share, least_weight, seed, position,
                        FEW_CANDIDATES,
                    )  # fmt: skip
                else:
                    token_id = _choose(
                        candidates, num_candidates, count, scale, mass_share, least_weight, seed, position,
                        MAX_CANDIDATES,
                    )  # fmt: skip
                tl.store(token_ids + row, token_id)
                tl.store(ledger + IS_DONE, 1)


@triton.jit
def _choose(candidates, num_candidates, top_k, temperature, top_p, min_p, seed, position, SIZE: tl.constexpr):
    """The token of a row, int64: `filters.filter_logits` and the arg-max of the scores, on sorted candidates."""
    ranks = tl.arange(0, SIZE)
    keys = tl.load(candidates + ranks, mask=ranks < num_candidates, other=LOWEST_KEY, cache_modifier=".cg")
    keys = tl.sort(keys, descending=True)
    ordered, ids = ordered_of(keys), id_of(keys)
    best = tl.max(ordered)
    scaled = relative(ordered, best, temperature)
    is_kept = (ranks < num_candidates) & (ranks < top_k)
    masses = tl.where(is_kept, mass_of(scaled), 0)
    before = tl.cumsum(masses, 0) - masses
    is_kept &= (before.to(tl.float64) < tl.sum(masses).to(tl.float64) * top_p) & (tl.exp(scaled) >= min_p)
    scores = gumbel_of(words_of_tokens(seed, position, ids)) + scaled
    scores = tl.where(is_kept & (scores == scores), scores, float("-inf"))
    # The first of the greatest; a broken row, in which none is kept, takes its most likely token.
    is_greatest = is_kept & (scores == tl.max(scores))
    rank = tl.min(tl.where(is_greatest, ranks, SIZE))
    rank = tl.where(rank == SIZE, 0, rank)
    return tl.sum(tl.where(ranks == rank, ids, 0))
