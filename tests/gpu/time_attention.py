"""Times attention of 31B and its drafter against the bytes it must read: `python -m tests.gpu.time_attention`.

Each line is a layer type, a number of rows a sequence (8: a verify of K = 7; 1: the drafter) and a position; each cell
a number of sequences: microseconds of a layer in a captured graph, and TB/s of its keys and values.
"""

import sys

import torch

from tandem.attention.device_batch import DeviceBatch
from tandem.attention.paged import PagedBackend
from tandem.kv_cache.group import KvGroup
from tests.gpu.captured import milliseconds

DEVICE = torch.device("cuda")
DTYPE = torch.bfloat16
BLOCK_SIZE = 32
NUM_HEADS = 32
MIN_BYTES = 1 << 28  # of keys and values that take turns, so that none is still in the cache
GROUPS = {
    "sliding": KvGroup("group", (0,), num_kv_heads=16, head_dim=256, window=1024),
    "full": KvGroup("group", (0,), num_kv_heads=4, head_dim=512, window=None),
}
BATCHES = (1, 8, 32)
CASES = (
    ("sliding", 8, 600, BATCHES),
    ("full", 8, 600, BATCHES),
    ("sliding", 1, 600, BATCHES),
    ("full", 1, 600, BATCHES),
    ("sliding", 8, 32900, (1,)),
    ("full", 8, 32900, (1,)),
    ("sliding", 1, 32900, (1,)),
    ("full", 1, 32900, (1,)),
)


def attention(group: KvGroup, num_rows: int, start: int, batch: int) -> tuple[float, float]:
    """Microseconds of one layer, and the bytes that it reads."""
    last = start + num_rows
    first = 0 if group.window is None else max(0, start - group.window + 1) // BLOCK_SIZE
    count = -(-last // BLOCK_SIZE) - first
    num_bytes = batch * (last - first * BLOCK_SIZE) * 2 * group.num_kv_heads * group.head_dim * DTYPE.itemsize
    num_layers = max(2, MIN_BYTES // num_bytes)
    shape = (batch * count * BLOCK_SIZE, *group.slot_shape)
    layers = [torch.randn(shape, device=DEVICE, dtype=DTYPE) for _ in range(num_layers)]
    tables = torch.zeros((batch, first + count), dtype=torch.int32, device=DEVICE)
    tables[:, first:] = torch.randperm(batch * count, device=DEVICE).view(batch, count).int()
    starts = torch.full((batch,), start, device=DEVICE)
    reach = next(reach for reach in (2047, 16383, 65535) if reach >= last)
    sequences = torch.arange(batch, device=DEVICE)
    ends = starts + (num_rows if num_rows > 1 else 0)  # a drafter's row sees none of its own
    planned = DeviceBatch(sequences, starts, ends, num_rows, reach, {"group": tables}, {"group": 0})
    backend = PagedBackend(NUM_HEADS, DEVICE, DTYPE, is_batch_invariant=num_rows > 1)
    plan = backend.prepare_on_device(planned, [group], BLOCK_SIZE).plans["group"]
    query = torch.randn((batch * num_rows, NUM_HEADS, group.head_dim), device=DEVICE, dtype=DTYPE)
    time = milliseconds(lambda: [backend.attend(query, layer, plan) for layer in layers])
    return 1e3 * time / num_layers, num_bytes


def main() -> int:
    """Prints the table."""
    if not torch.cuda.is_available():
        print("needs a GPU", file=sys.stderr)
        return 1
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    for name, num_rows, start, batches in CASES:
        cells = []
        for batch in batches:
            time, num_bytes = attention(GROUPS[name], num_rows, start, batch)
            cells.append(f"batch {batch:>2}: {time:7.1f} us {num_bytes / time / 1e6:5.2f} TB/s")
        print(f"{name:>8}, {num_rows} rows at {start:>6}   " + "   ".join(cells), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
