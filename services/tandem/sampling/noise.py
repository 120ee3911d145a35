"""Gumbel noise that is a pure function of (seed, position, token).

Generator: Philox 4x32-10, from J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy as 1, 2, 3"
(SC 2011). Key = the 64-bit seed, counter = (token // 4, position, 0, 0); token % 4 picks one of the four words.
Changing any of this changes every seeded text ever produced, so the tests pin it.
"""

from functools import cache

import torch

NUM_ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)  # for counter words 0 and 2
KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)  # added to the key after every round
WORD_MASK = 0xFFFFFFFF


@cache
def _constants(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Multipliers [2] and key offsets [NUM_ROUNDS, 2], copied to a device once: a captured graph cannot copy them."""
    offsets = [[number * increment & WORD_MASK for increment in KEY_INCREMENTS] for number in range(NUM_ROUNDS)]
    return torch.tensor(MULTIPLIERS, device=device), torch.tensor(offsets, device=device)


def philox4x32(
    counters: torch.Tensor,  # [4, ...] int64 holding 32-bit words
    keys: torch.Tensor,  # [2, ...] int64 holding 32-bit words; broadcasts against a counter word
) -> torch.Tensor:  # [4, ...] int64 holding 32-bit words
    """Philox 4x32-10 in 64-bit integer arithmetic.

    The two halves of a round are computed as one tensor of two rows, because small tensors cost by the operation.
    """
    multipliers, key_offsets = _constants(counters.device)
    ones = (1,) * (counters.dim() - 1)
    multipliers = multipliers.view(2, *ones)
    round_keys = (keys + key_offsets.view(NUM_ROUNDS, 2, *ones)) & WORD_MASK
    evens, odds = counters[0::2], counters[1::2]  # words 0 and 2; words 1 and 3
    for round_key in round_keys.unbind(0):
        # A product may pass 2^63: two's complement then still holds the bits of the unsigned product. Upper halves
        # of odd words are rubbish until the end: no multiplication sees them, and the mask on even words drops them.
        products = (evens * multipliers).flip(0)
        evens = (products >> 32).bitwise_xor_(odds).bitwise_xor_(round_key).bitwise_and_(WORD_MASK)
        odds = products
    return torch.stack((evens, odds), dim=1).flatten(0, 1).bitwise_and_(WORD_MASK)


def gumbel(
    seeds: torch.Tensor,  # [R] int64
    positions: torch.Tensor,  # [R] int64, of the token being chosen
    token_ids: torch.Tensor,  # [R, C] int64
) -> torch.Tensor:  # [R, C] float64
    """Standard Gumbel noise for every (seed, position, token); equal arguments always give equal noise."""
    counters = token_ids.new_zeros((4, *token_ids.shape))
    counters[0] = token_ids >> 2
    counters[1] = (positions & WORD_MASK).unsqueeze(-1)
    keys = torch.stack((seeds & WORD_MASK, (seeds >> 32) & WORD_MASK)).unsqueeze(-1)
    words = philox4x32(counters, keys).gather(0, (token_ids & 3).unsqueeze(0)).squeeze(0)
    # The middle of one of 2^32 equal cells: never 0 and never 1, so that both logarithms are finite.
    uniform = words.double().add_(0.5).mul_(2.0**-32)
    return uniform.log_().neg_().log_().neg_()
