"""What one round asks of attention where only the device knows how far each sequence has come."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from tandem.kv_cache.group import KvGroup


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

    def positions(self) -> torch.Tensor:  # [B * num_rows] int64
        """The position of every row."""
        return (self.starts.unsqueeze(1) + torch.arange(self.num_rows, device=self.starts.device)).flatten()

    def slots_written(self, group: KvGroup, block_size: int) -> torch.Tensor:  # [B * num_rows] int64
        """Where the key and value of every row go in a group."""
        table = self.block_tables[group.name]
        positions = self.positions().view(-1, self.num_rows)
        places = positions // block_size
        blocks = table[self.sequences.unsqueeze(1), places.clamp(0, table.shape[1] - 1)].long()
        blocks = torch.where((blocks >= 0) & (places < table.shape[1]), blocks, self.spare_blocks[group.name])
        return (blocks * block_size + positions % block_size).flatten()
