"""What one round asks of attention where only the device knows how far each sequence has come."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class DeviceBatch:
    """Query rows of some sequences, as many each, sequence after sequence in flattened order.

    The rules are those of `QueryBatch`: a verifier's rows see themselves, a drafter's row at P sees 0..P-1.
    """

    sequences: torch.Tensor  # [B] int64, each one's row in the block tables
    starts: torch.Tensor  # [B] int64, position of each sequence's first row
    num_keys: torch.Tensor  # [B] int64, visible keys 0..n-1 of each
    num_rows: int  # of each
    max_position: int  # no row stands beyond it: bounds what is launched
    block_tables: Mapping[str, torch.Tensor]  # group -> [S, W] int32, negative where there is no block
    spare_blocks: Mapping[str, int]  # group -> block that nobody holds: rows without a block of their own write there
