"""A `DeviceBatch` in one tensor, for another process that plans the same round on its own device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from tandem.attention.device_batch import DeviceBatch

_NO_BLOCK = -1


@dataclass(frozen=True)
class RoundForm:
    """What the host knows of a round, and the tensor's size follows from."""

    num_sequences: int
    num_rows: int  # of each
    max_position: int  # no row stands beyond it

    def num_blocks(self, block_size: int) -> int:
        """Entries of a block table that may be read."""
        return self.max_position // block_size + 1

    def size(self, num_groups: int, block_size: int) -> int:
        """Numbers that the round is told by."""
        return self.num_sequences * (2 + num_groups * self.num_blocks(block_size))


def to_tensor(
    batch: DeviceBatch, groups: Sequence[str], block_size: int
) -> torch.Tensor:  # [size] int32: positions, visible keys, each group's tables
    """What the device knows of a round."""
    width = RoundForm(len(batch.starts), batch.num_rows, batch.max_position).num_blocks(block_size)
    tables = [batch.block_tables[group][batch.sequences, :width] for group in groups]
    padded = [F.pad(table, (0, width - table.shape[1]), value=_NO_BLOCK).flatten() for table in tables]
    return torch.cat((batch.starts.int(), batch.num_keys.int(), *padded))


def from_tensor(
    numbers: torch.Tensor,  # [size] int32, from `to_tensor`
    form: RoundForm,
    groups: Sequence[str],
    block_size: int,
    spare_blocks: Mapping[str, int],
) -> DeviceBatch:
    """The round, with sequences in the order of its rows. Does not wait for the device."""
    count, width = form.num_sequences, form.num_blocks(block_size)
    starts, num_keys, tables = torch.split(numbers, [count, count, len(groups) * count * width])
    return DeviceBatch(
        sequences=torch.arange(count, device=numbers.device),
        starts=starts.long(),
        num_keys=num_keys.long(),
        num_rows=form.num_rows,
        max_position=form.max_position,
        block_tables=dict(zip(groups, tables.view(len(groups), count, width).unbind(), strict=True)),
        spare_blocks=spare_blocks,
    )
