"""Rows that may choose from the whole vocabulary: propose a token, then see whether the filters leave it.

What filters leave are the first tokens of the order by likelihood. So the best score among all tokens is the best among
those left if its token is left; if not, no token after it in the order is left either, and the search goes on among
the tokens before it. By the nature of Gumbel noise each search is a fresh draw from what remains: with a mass p of
tokens left, there are 1 + ln(1 / p) searches on the mean (the number of records in a random sequence).

`propose` makes one round for all rows, many programs each; after a few, `settle` finishes the rare rows that are not
done, and serves those with a large top-k, one program each.
"""

import triton
import triton.language as tl

from tandem.sampling.choice_kernel import (
    BEST,
    INT32_MIN,
    IS_DONE,
    LOWEST_KEY,
    PROPOSAL,
    ROUNDS,
    gumbel_bound,
    gumbel_of,
    id_of,
    is_last,
    key_of,
    mass_of,
    ordered_bits,
    ordered_of,
    relative,
    value_of,
    words_of_quads,
    words_of_tokens,
)

MAX_NOISE = tl.constexpr(22.9)  # -log(-log(1 - 2^-33)) is 22.87
LEAST_SCALED = tl.constexpr(-31.0)  # below -44 log 2 = -30.5 a token has no mass


@triton.jit
def _search(
    logits, maxima, vocab_size, num_blocks, best_key, bound, temperature, seed, position, needs_mass, first, step,
    BLOCK: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Looks at the tokens whose keys are above `bound`, in every `step`-th tile from `first` on.

    Returns the best score and its token's key, of these tokens and of the most likely one, and the mass of all.
    Scores, in float64, are computed only in tiles where a cheap bound does not rule out that the best is there.
    """
    best = ordered_of(best_key)
    score = gumbel_of(words_of_tokens(seed, position, id_of(best_key)))
    token = best_key
    mass = tl.full((), 0, tl.int64)
    inverse = (1.0 / temperature).to(tl.float32)
    TILE_BLOCKS: tl.constexpr = TILE // BLOCK
    for tile in range(first, tl.cdiv(num_blocks, TILE_BLOCKS), step):
        blocks = tile * TILE_BLOCKS + tl.arange(0, TILE_BLOCKS)
        greatest = tl.max(tl.load(maxima + blocks, mask=blocks < num_blocks, other=INT32_MIN))
        least_loss = relative(greatest, best, temperature)
        has_mass = needs_mass & (least_loss > LEAST_SCALED)
        may_win = least_loss + MAX_NOISE >= score
        if (greatest >= ordered_of(bound)) & (has_mass | may_win):
            ids = tile * TILE + tl.arange(0, TILE)
            values = tl.load(logits + ids, mask=ids < vocab_size, other=0.0).to(tl.float32)
            ordered = ordered_bits(values)
            keys = key_of(ordered, ids)
            is_above = (keys > bound) & (ids < vocab_size)
            if has_mass:
                mass += tl.sum(tl.where(is_above, mass_of(relative(ordered, best, temperature)), 0))
            if may_win:
                words = words_of_quads(seed, position, tile * (TILE // 4) + tl.arange(0, TILE // 4))
                # Raised by far more than float32 rounds.
                losses = (values - value_of(best).to(tl.float32)) * inverse
                highest = losses * 0.9999 + gumbel_bound(words) * 1.0001 + 0.0001
                is_hopeless = highest < score.to(tl.float32)  # also false for what is not a number
                if tl.max((is_above & (is_hopeless == 0)).to(tl.int32)) > 0:
                    scores = gumbel_of(words) + relative(ordered, best, temperature)
                    scores = tl.where(is_above & (scores == scores), scores, float("-inf"))
                    top = tl.max(scores)
                    key = tl.max(tl.where(is_above & (scores == top), keys, LOWEST_KEY))
                    if (top > score) | ((top == score) & (key > token)):
                        score, token = top, key
    return score, token, mass


@triton.jit
def _is_left(key, above, total, best_key, temperature, top_p, min_p):
    """Whether top-p and min-p leave a token with a mass of `above` before it; only top-p needs the masses."""
    weight = tl.exp(relative(ordered_of(key), ordered_of(best_key), temperature))
    is_within = (top_p >= 1.0) | (above.to(tl.float64) < total.to(tl.float64) * top_p)
    return (key == best_key) | (is_within & (weight >= min_p))


@triton.jit
def propose(
    logits,  # [R, V] float32 or bfloat16
    row_stride,
    temperature,  # [R] float64
    top_k,  # [R] int64
    top_p,  # [R] float64
    min_p,  # [R] float64
    seeds,  # [R] int64
    positions,  # [R] int64
    maxima,  # [R, num_blocks] int32
    scores,  # [R, programs] float64, scratch
    tokens,  # [R, programs] int64, scratch
    ledger,  # [R, num_columns] int64
    token_ids,  # [R] int64, written
    vocab_size,
    num_blocks,
    num_columns,
    turn,  # 0, 1, ...: of the launches for one batch
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,  # tokens
    ALL_PROGRAMS: tl.constexpr,  # a power of two, at least the programs of a row
):
    """Programs: (some tiles, a row). Examines the last round's proposal and makes the next in the same pass."""
    row = tl.program_id(1).to(tl.int64)
    ledger += row * num_columns
    if (tl.load(ledger + IS_DONE) == 0) & (tl.load(top_k + row) >= vocab_size):
        scale, mass_share, least_weight = tl.load(temperature + row), tl.load(top_p + row), tl.load(min_p + row)
        best_key = tl.load(ledger + BEST)
        proposal = tl.full((), LOWEST_KEY, tl.int64)
        if turn > 0:
            proposal = tl.load(ledger + PROPOSAL)
        score, token, mass = _search(
            logits + row * row_stride, maxima + row * num_blocks, vocab_size, num_blocks, best_key, proposal, scale,
            tl.load(seeds + row), tl.load(positions + row), mass_share < 1.0, tl.program_id(0), tl.num_programs(0),
            BLOCK, TILE,
        )  # fmt: skip
        scores += row * tl.num_programs(0)
        tokens += row * tl.num_programs(0)
        tl.store(scores + tl.program_id(0), score)
        tl.store(tokens + tl.program_id(0), token)
        masses = ledger + ROUNDS + 2 * turn
        tl.atomic_add(masses, mass)
        if is_last(ledger + ROUNDS + 2 * turn + 1):
            program = tl.arange(0, ALL_PROGRAMS)
            is_program = program < tl.num_programs(0)
            found = tl.load(scores + program, mask=is_program, other=float("-inf"), cache_modifier=".cg")
            keys = tl.load(tokens + program, mask=is_program, other=LOWEST_KEY, cache_modifier=".cg")
            following = tl.max(tl.where(found == tl.max(found), keys, LOWEST_KEY))
            above = tl.load(masses, cache_modifier=".cg")
            total = tl.load(ledger + ROUNDS)  # nothing is before the first round's tokens
            is_done = (turn > 0) & _is_left(proposal, above, total, best_key, scale, mass_share, least_weight)
            chosen = proposal
            if is_done == 0:
                chosen = following
                # Without top-p no mass is needed to see whether it is left.
                is_done = (mass_share >= 1.0) & _is_left(following, above, total, best_key, scale, 1.0, least_weight)
            if is_done:
                tl.store(token_ids + row, id_of(chosen))
                tl.store(ledger + IS_DONE, 1)
            else:
                tl.store(ledger + PROPOSAL, following)


@triton.jit
def settle(
    logits,  # [R, V] float32 or bfloat16
    row_stride,
    temperature,  # [R] float64
    top_k,  # [R] int64
    top_p,  # [R] float64
    min_p,  # [R] float64
    seeds,  # [R] int64
    positions,  # [R] int64
    maxima,  # [R, num_blocks] int32
    ledger,  # [R, num_columns] int64
    token_ids,  # [R] int64, written
    vocab_size,
    num_blocks,
    num_columns,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,  # tokens
):
    """Programs: (a row)."""
    row = tl.program_id(0).to(tl.int64)
    ledger += row * num_columns
    if tl.load(ledger + IS_DONE) == 0:
        logits += row * row_stride
        maxima += row * num_blocks
        scale, mass_share, least_weight = tl.load(temperature + row), tl.load(top_p + row), tl.load(min_p + row)
        seed, position, count = tl.load(seeds + row), tl.load(positions + row), tl.load(top_k + row)
        best_key = tl.load(ledger + BEST)
        bound = tl.full((), LOWEST_KEY, tl.int64)
        if count < vocab_size:
            bound = _last_key(logits, maxima, vocab_size, num_blocks, best_key, count, BLOCK, TILE) - 1
        _, proposal, total = _search(
            logits, maxima, vocab_size, num_blocks, best_key, bound, scale, seed, position, mass_share < 1.0, 0, 1,
            BLOCK, TILE,
        )  # fmt: skip
        is_done = False
        while is_done == 0:
            _, following, above = _search(
                logits, maxima, vocab_size, num_blocks, best_key, proposal, scale, seed, position, mass_share < 1.0,
                0, 1, BLOCK, TILE,
            )  # fmt: skip
            is_done = _is_left(proposal, above, total, best_key, scale, mass_share, least_weight)
            if is_done == 0:
                proposal = following
        tl.store(token_ids + row, id_of(proposal))


@triton.jit
def _last_key(logits, maxima, vocab_size, num_blocks, best_key, count, BLOCK: tl.constexpr, TILE: tl.constexpr):
    """The `count`-th greatest key of a row, by bisection."""
    low = tl.full((), LOWEST_KEY, tl.int64)  # at least `count` keys are no lower
    high = best_key + 1  # fewer are no lower
    TILE_BLOCKS: tl.constexpr = TILE // BLOCK
    while low + 1 < high:
        middle = (low >> 1) + (high >> 1) + (low & high & 1)  # their sum may not fit
        num_found = 0
        for tile in range(0, tl.cdiv(num_blocks, TILE_BLOCKS)):
            blocks = tile * TILE_BLOCKS + tl.arange(0, TILE_BLOCKS)
            greatest = tl.max(tl.load(maxima + blocks, mask=blocks < num_blocks, other=INT32_MIN))
            if greatest >= ordered_of(middle):
                ids = tile * TILE + tl.arange(0, TILE)
                ordered = ordered_bits(tl.load(logits + ids, mask=ids < vocab_size, other=0.0))
                is_found = (key_of(ordered, ids) >= middle) & (ids < vocab_size)
                num_found += tl.sum(is_found.to(tl.int32))
        if num_found >= count:
            low = middle
        else:
            high = middle
    return low
