"""Gumbel noise that is a pure function of (seed, position, token).

Generator: Philox 4x32-10, from J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy as 1, 2, 3"
(SC 2011). Key = the 64-bit seed, counter = (token // 4, position, 0, 0); token % 4 picks one of the four words.
Changing any of this changes every seeded text ever produced, so the tests pin it.
"""

from functools import cache

import torch

NUM_ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)  # of counter words 0 and 2
KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)  # added to the key after every round
# Tensors without dimensions act as numbers on every device, and spare torch making one of a number at each call.
WORD_BITS = torch.tensor(32)
WORD_MASK = torch.tensor(0xFFFFFFFF)


def philox4x32(
    evens: torch.Tensor,  # [2, R, C] int64, words 0 and 2 of the counters
    odds: torch.Tensor,  # [2, R, C] or [2, R, 1] int64, words 1 and 3
    keys: torch.Tensor,  # [2, R, 1] int64, of which the low 32 bits count
) -> torch.Tensor:  # [4, R, C] int64
    """Philox 4x32-10 on 32-bit words held in 64-bit integers.

    The two halves of a round are the two rows of one tensor, because small tensors cost by the operation.
    """
    multipliers, key_offsets, _ = _constants(evens.device)
    for round_key in ((keys + key_offsets) & WORD_MASK).unbind(0):
        # A product may pass 2^63: two's complement then still holds the bits of the unsigned product. Upper halves
        # of odd words are rubbish until the end: no multiplication sees them, and the mask on even words drops them.
        products = (evens * multipliers).flip(0)
        evens = (products >> WORD_BITS).bitwise_xor_(odds).bitwise_xor_(round_key).bitwise_and_(WORD_MASK)
        odds = products
    return torch.stack((evens, odds), dim=1).flatten(0, 1).bitwise_and_(WORD_MASK)


def gumbel(
    seeds: torch.Tensor,  # [R] int64, not negative
    positions: torch.Tensor,  # [R] int64, 0 <= position < 2^31, of the token being chosen
    token_ids: torch.Tensor,  # [R, C] int64, not negative
) -> torch.Tensor:  # [R, C] float64
    """Standard Gumbel noise for every (seed, position, token); equal arguments always give equal noise."""
    words = _words(seeds, positions, token_ids >> 2)
    return _gumbel_of(words.gather(0, (token_ids & 3).unsqueeze(0)).squeeze(0))


def gumbel_of_vocabulary(
    seeds: torch.Tensor,  # [R] int64
    positions: torch.Tensor,  # [R] int64
    vocab_size: int,
) -> torch.Tensor:  # [R, V] float64
    """The same noise for all tokens 0..V-1 at a quarter of the work, as four neighbours share a generator call."""
    quads = torch.arange((vocab_size + 3) // 4, device=seeds.device).expand(len(seeds), -1)
    words = _words(seeds, positions, quads).permute(1, 2, 0)
    return _gumbel_of(words.flatten(1)[:, :vocab_size])


def _words(
    seeds: torch.Tensor,  # [R] int64
    positions: torch.Tensor,  # [R] int64
    quads: torch.Tensor,  # [R, C] int64, token // 4
) -> torch.Tensor:  # [4, R, C] int64
    _, _, shifts = _constants(quads.device)
    return philox4x32(
        evens=quads >> shifts[0],
        odds=positions.unsqueeze(-1) >> shifts[0],
        keys=seeds.unsqueeze(-1) >> shifts[1],
    )


def _gumbel_of(words: torch.Tensor) -> torch.Tensor:  # int64 -> float64
    # The middle of one of 2^32 equal cells: never 0 and never 1, so that both logarithms are finite.
    uniform = words.double().add_(0.5).mul_(2.0**-32)
    return uniform.log_().neg_().log_().neg_()


@cache
def _constants(device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Multipliers [2, 1, 1], key offsets [NUM_ROUNDS, 2, 1, 1] and the shifts [2, 2, 1, 1] that lay out the words.

    Copied to a device once, as a graph being captured cannot copy them. The shifts make (word, 0) of a counter's word
    and (low word, high word) of a seed.
    """
    offsets = [[number * increment for increment in KEY_INCREMENTS] for number in range(NUM_ROUNDS)]
    shifts = [[0, 63], [0, 32]]
    return (
        torch.tensor(MULTIPLIERS, device=device).view(2, 1, 1),
        torch.tensor(offsets, device=device).view(NUM_ROUNDS, 2, 1, 1),
        torch.tensor(shifts, device=device).view(2, 2, 1, 1),
    )
