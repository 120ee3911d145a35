"""How a program of paged attention goes about its keys, by what it has to sum up."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Manner:
    """Of these, keys and warps decide how a row rounds."""

    block_keys: int  # of a turn
    value_dims: int  # of the head, that a program sums up
    num_warps: int
    num_stages: int


def manner_of(block_rows: int, head_dim: int, dtype: torch.dtype) -> Manner:
    """The same for split and whole pieces. Measured on an H100 with the heads of 31B and its drafter."""
    numbers = block_rows * head_dim
    if dtype == torch.float32:
        return Manner(max(16, min(32, (1 << 13) // head_dim)), head_dim, 8 if numbers >= 1 << 14 else 4, 1)
    return Manner(32, head_dim // 2 if numbers > 1 << 14 else head_dim, 4, 3)
