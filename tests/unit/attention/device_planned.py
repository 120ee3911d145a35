"""Attention on a CPU that is planned as on a GPU."""

from tandem.attention.metadata import QueryBatch
from tandem.attention.reference import ReferenceBackend


class DevicePlanned(ReferenceBackend):
    """Plans rounds from tensors."""

    def prepare_on_device(self, batch, groups, block_size):
        starts, num_keys = batch.starts.tolist(), [max(1, count) for count in batch.num_keys.tolist()]
        width = -(-max(max(starts) + batch.num_rows, *num_keys) // block_size)
        tables = {}
        for group in groups:
            spare = batch.spare_blocks[group.name]
            rows = batch.block_tables[group.name][batch.sequences].tolist()
            rows = [[block if block >= 0 else spare for block in row] for row in rows]
            tables[group.name] = [row + [spare] * (width - len(row)) for row in rows]
        lengths = (batch.num_rows,) * len(starts)
        return self.prepare(QueryBatch(lengths, tuple(starts), tuple(num_keys), tables), groups, block_size)
