"""What the sampling kernels share: the definitions of `candidates`, `noise` and `filters` once more, in Triton.

Also how the programs of a row hand over: the last of them to arrive goes on with what all have found.
"""

import triton
import triton.language as tl

from tandem.sampling.filters import MASS_UNIT

_MASS_UNIT = tl.constexpr(MASS_UNIT)
LOWEST_KEY = tl.constexpr(-(1 << 63))  # below every token's
INT32_MAX = tl.constexpr(0x7FFFFFFF)
INT32_MIN = tl.constexpr(-0x80000000)

# The columns of a row in the ledger, int64, all 0 before the first kernel.
IS_DONE = tl.constexpr(0)  # 1 once the token is chosen
BEST = tl.constexpr(1)  # key of the most likely token
FLOOR = tl.constexpr(2)  # ordered value: none of the top k lies below
NUM_SURVEYED = tl.constexpr(3)  # programs of `survey` that arrived
NUM_GATHERED = tl.constexpr(4)  # programs of `gather` that arrived
NUM_CANDIDATES = tl.constexpr(5)
PROPOSAL = tl.constexpr(6)  # key of the token to be examined
ROUNDS = tl.constexpr(7)  # from here on for each turn of `propose`: the mass above its bound, programs that arrived


@triton.jit
def is_last(counter):
    """Whether all other programs of the row have arrived, and so have written what they found."""
    tl.debug_barrier()
    return tl.atomic_add(counter, 1, sem="acq_rel") == tl.num_programs(0) - 1


@triton.jit
def ordered_bits(values):
    """float32, or numbers of 16 bits -> int32 that compares as the float does; -0 as 0."""
    bits = (values.to(tl.float32) + 0.0).to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & INT32_MAX)


@triton.jit
def value_of(ordered):
    """The float32 that an ordered int32 stands for, as float64."""
    return (ordered ^ ((ordered >> 31) & INT32_MAX)).to(tl.float32, bitcast=True).to(tl.float64)


@triton.jit
def key_of(ordered, ids):
    """int64: greater for a greater value, and for a lower id among equals."""
    return (ordered.to(tl.int64) << 32) + (ids ^ INT32_MAX)  # INT32_MAX - ids


@triton.jit
def ordered_of(key):
    """The value's part of a key, int32."""
    return (key >> 32).to(tl.int32)


@triton.jit
def id_of(key):
    """The token's id in a key, int64."""
    return (key & INT32_MAX) ^ INT32_MAX


@triton.jit
def relative(ordered, best, temperature):
    """Logits over temperature, relative to the row's best, float64."""
    difference = value_of(ordered) - value_of(best)
    return tl.where(ordered == best, 0.0, difference / temperature)  # also where the best is infinite


@triton.jit
def mass_of(scaled):
    """The integer mass of a token whose logit is `relative`."""
    return (tl.exp(scaled) * _MASS_UNIT).to(tl.int64)


@triton.jit
def gumbel_of(words):
    """Standard Gumbel noise of Philox words, float64."""
    uniform = (words.to(tl.float64) + 0.5) * (2.0**-32)
    return -tl.log(-tl.log(uniform))


@triton.jit
def gumbel_bound(words):
    """No less than `gumbel_of`, and close where that is great, for one float32 logarithm: -log u >= 1 - u."""
    return -tl.log(((~words).to(tl.float32) + 0.5) * (2.0**-32))


@triton.jit
def words_of_tokens(seed, position, ids):
    """The Philox word of any tokens; see `words_of_quads` for neighbours."""
    word0, word1, word2, word3 = tl.philox(seed, (ids >> 2).to(tl.uint32), position.to(tl.uint32), 0, 0)
    which = ids & 3
    return tl.where(which < 2, tl.where(which == 0, word0, word1), tl.where(which == 2, word2, word3))


@triton.jit
def words_of_quads(seed, position, quads):
    """The Philox words of tokens 4q..4q+3 of consecutive quads q, in the tokens' order."""
    word0, word1, word2, word3 = tl.philox(seed, quads.to(tl.uint32), position.to(tl.uint32), 0, 0)
    return tl.interleave(tl.interleave(word0, word2), tl.interleave(word1, word3))
