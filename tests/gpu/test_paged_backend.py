"""The paged attention kernels at the head sizes of Gemma 4, against float64."""

import pytest
import torch

from tandem.attention.metadata import QueryBatch
from tandem.attention.paged import PagedBackend
from tandem.kv_cache.group import KvGroup

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

BLOCK_SIZE = 32
NUM_HEADS = 32
GROUPS = {
    "sliding": KvGroup("group", (0,), num_kv_heads=16, head_dim=256, window=1024),
    "full": KvGroup("group", (0,), num_kv_heads=4, head_dim=512, window=None),
}
STEPS = {  # rows, first positions, visible keys
    "decode": ([1], [700], [701]),
    "verify": ([8], [2043], [2051]),
    "batch": ([8, 1, 5, 8], [100, 1500, 0, 3000], [108, 1501, 5, 3008]),
    "prefill": ([300], [900], [1200]),
    "drafter": ([1, 1], [2000, 40], [2000, 40]),
}
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


class Problem:
    """Random keys in scattered blocks; a third of the blocks belongs to nobody and holds NaN."""

    def __init__(
        self,
        group: KvGroup,
        dtype: torch.dtype,
        step: tuple[list[int], list[int], list[int]],
        block_size: int = BLOCK_SIZE,
    ) -> None:
        lens, starts, num_keys = step
        generator = torch.Generator("cuda").manual_seed(0)
        needed = [(max(start + count, keys) - 1) // block_size + 1 for count, start, keys in zip(*step, strict=True)]
        blocks = torch.randperm(sum(needed) * 3 // 2 + 1, generator=torch.Generator().manual_seed(0)).tolist()
        self.kv = torch.full((len(blocks) * block_size, *group.slot_shape), torch.nan, device="cuda", dtype=dtype)
        self.tables = [[blocks.pop() for _ in range(count)] for count in needed]
        for table in self.tables:
            for block in table:
                rows = slice(block * block_size, (block + 1) * block_size)
                self.kv[rows] = torch.randn(block_size, *group.slot_shape, generator=generator, device="cuda").to(dtype)
        self.group, self.block_size = group, block_size
        self.batch = QueryBatch(tuple(lens), tuple(starts), tuple(num_keys), {"group": self.tables})
        shape = (sum(lens), NUM_HEADS, group.head_dim)
        self.query = (torch.randn(shape, generator=generator, device="cuda") * group.head_dim**-0.5).to(dtype)

    def attend(self) -> torch.Tensor:
        backend = PagedBackend(NUM_HEADS, "cuda", self.kv.dtype)
        plan = backend.prepare(self.batch, [self.group], self.block_size).plans["group"]
        return backend.attend(self.query, self.kv, plan)

    def expected(self) -> torch.Tensor:
        rows, first = [], 0
        for index, length in enumerate(self.batch.query_lens):
            table = torch.tensor(self.tables[index], device="cuda")
            slots = (table[:, None] * self.block_size + torch.arange(self.block_size, device="cuda")).flatten()
            for row in range(length):
                position = self.batch.start_positions[index] + row
                last = min(position, self.batch.num_keys[index] - 1)
                oldest = 0 if self.group.window is None else max(0, position - self.group.window + 1)
                seen = self.kv[slots[oldest : last + 1]].double()
                keys = seen[:, 0].repeat_interleave(NUM_HEADS // self.group.num_kv_heads, 1)
                values = seen[:, 1].repeat_interleave(NUM_HEADS // self.group.num_kv_heads, 1)
                weights = torch.einsum("hd,khd->hk", self.query[first + row].double(), keys).softmax(-1)
                rows.append(torch.einsum("hk,khd->hd", weights, values))
            first += length
        return torch.stack(rows)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("group", GROUPS)
def test_it_agrees_with_float64(group: str, step: str, dtype: torch.dtype) -> None:
    problem = Problem(GROUPS[group], dtype, STEPS[step])
    error = (problem.attend().double() - problem.expected()).abs().max()
    assert error < TOLERANCE[dtype]


@pytest.mark.parametrize("block_size", [16, 64])
@pytest.mark.parametrize("group", GROUPS)
def test_blocks_of_other_sizes(group: str, block_size: int) -> None:
    problem = Problem(GROUPS[group], torch.bfloat16, STEPS["batch"], block_size)
    assert (problem.attend().double() - problem.expected()).abs().max() < TOLERANCE[torch.bfloat16]


@pytest.mark.parametrize("group", GROUPS)
def test_a_row_rounds_as_it_does_alone(group: str) -> None:
    problem = Problem(GROUPS[group], torch.bfloat16, STEPS["batch"])
    together, first = problem.attend(), 0
    query, batch = problem.query, problem.batch
    for index, length in enumerate(batch.query_lens):
        for row in range(length):
            position = batch.start_positions[index] + row
            problem.batch = QueryBatch((1,), (position,), (position + 1,), {"group": [problem.tables[index]]})
            problem.query, tables = query[first + row : first + row + 1], problem.tables
            assert torch.equal(problem.attend()[0], together[first + row])
            problem.tables = tables
        first += length


def test_the_host_never_waits() -> None:
    problem = Problem(GROUPS["full"], torch.bfloat16, STEPS["batch"])
    problem.attend()
    torch.cuda.set_sync_debug_mode("error")
    try:
        problem.attend()
    finally:
        torch.cuda.set_sync_debug_mode("default")
