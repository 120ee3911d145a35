"""The reference backend against attention written out key by key."""

import random
from math import exp, nan

import pytest
import torch

from tandem.attention.metadata import QueryBatch
from tandem.attention.reference import ReferenceBackend
from tandem.kv_cache.group import KvGroup
from tandem.kv_cache.scales import UNSCALED, KvScales
from tandem.kv_cache.storage import widen_kv
from tests.unit.attention.rounding import assert_alike

NUM_HEADS = 4
SLIDING = KvGroup("sliding_attention", (0,), num_kv_heads=2, head_dim=32, window=5)
FULL = KvGroup("full_attention", (1,), num_kv_heads=1, head_dim=16, window=None)
GROUPS = (SLIDING, FULL)


class Step:
    """Random keys at scattered slots, and the answer computed the slow way."""

    def __init__(
        self,
        lens: list[int],
        starts: list[int],
        num_keys: list[int],
        block_size: int,
        seed: int,
        unseen: float = nan,  # stands everywhere else
    ) -> None:
        rng = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.block_size = block_size
        needed = [(max(s + n, keys) - 1) // block_size + 1 for n, s, keys in zip(lens, starts, num_keys, strict=True)]
        num_blocks = sum(needed) + 3
        self.kv = {}
        tables = {}
        for group in GROUPS:
            ids = rng.sample(range(num_blocks), sum(needed))
            tables[group.name] = [[ids.pop() for _ in range(count)] for count in needed]
            kv = torch.full((num_blocks * block_size, *group.slot_shape), unseen)
            for table, start, keys in zip(tables[group.name], starts, num_keys, strict=True):
                oldest = 0 if group.window is None else max(0, start - group.window + 1)
                for key in range(oldest, keys):
                    kv[self._slot(table, key)] = torch.randn(group.slot_shape, generator=self.generator)
                table[: oldest // block_size] = [-1] * (oldest // block_size)
            self.kv[group.name] = kv
        self.wide = self.kv  # what stands there, in a format to compute with
        self.batch = QueryBatch(tuple(lens), tuple(starts), tuple(num_keys), tables)

    def _slot(self, table: list[int], position: int) -> int:
        return table[position // self.block_size] * self.block_size + position % self.block_size

    def narrow(self, scales: KvScales) -> None:
        """Makes it the same step over keys and values of 8 bits."""
        self.kv = {name: kv.to(torch.float8_e4m3fn) for name, kv in self.kv.items()}
        self.wide = {name: widen_kv(kv, torch.float32, scales) for name, kv in self.kv.items()}

    def query(self, group: KvGroup) -> torch.Tensor:
        return torch.randn(self.batch.num_tokens, NUM_HEADS, group.head_dim, generator=self.generator)

    def expected(self, group: KvGroup, query: torch.Tensor) -> torch.Tensor:
        rows = []
        batch, kv = self.batch, self.wide[group.name].double()
        for index, length in enumerate(batch.query_lens):
            table = batch.block_tables[group.name][index]
            for position in range(batch.start_positions[index], batch.start_positions[index] + length):
                visible = [
                    kv[self._slot(table, key)]
                    for key in range(min(position + 1, batch.num_keys[index]))
                    if group.window is None or position - key < group.window
                ]
                rows.append(self._row(query[len(rows)].double(), visible, group))
        return torch.stack(rows).float()

    @staticmethod
    def _row(query: torch.Tensor, visible: list[torch.Tensor], group: KvGroup) -> torch.Tensor:
        heads = []
        for head in range(NUM_HEADS):
            kv_head = head // (NUM_HEADS // group.num_kv_heads)
            weights = [exp(float(query[head] @ entry[0, kv_head])) for entry in visible]
            total = sum(weights)
            heads.append(sum(w / total * entry[1, kv_head] for w, entry in zip(weights, visible, strict=True)))
        return torch.stack(heads)


def attend(
    step: Step, group: KvGroup, query: torch.Tensor, is_invariant: bool = True, scales: KvScales = UNSCALED
) -> torch.Tensor:
    backend = ReferenceBackend(NUM_HEADS, is_batch_invariant=is_invariant)
    metadata = backend.prepare(step.batch, GROUPS, step.block_size)
    query = query.expand(metadata.num_rows, -1, -1) if metadata.num_rows > metadata.num_tokens else query
    return backend.attend(query, step.kv[group.name], metadata.plans[group.name], scales)[: metadata.num_tokens]


CASES = {
    "prefill": ([7], [0], [7]),
    "decode": ([1], [12], [13]),
    "verify": ([4], [11], [15]),
    "chunk": ([40], [17], [57]),
    "pieces": ([140], [3], [143]),
    "batched verify": ([3, 3, 3], [20, 4, 9], [23, 7, 12]),
    "very different lengths": ([2, 2, 2], [150, 0, 30], [152, 2, 32]),
    "mixed": ([3, 30, 1, 3, 1], [5, 8, 40, 0, 0], [8, 38, 41, 3, 1]),
    "drafter": ([1, 1, 1], [20, 4, 1], [20, 4, 1]),
    "one drafter": ([1], [20], [20]),
}


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
@pytest.mark.parametrize("block_size", [1, 4, 16])
@pytest.mark.parametrize("case", CASES)
def test_equals_attention_written_out(case: str, block_size: int, group: KvGroup) -> None:
    step = Step(*CASES[case], block_size, seed=len(case))
    query = step.query(group)
    expected = step.expected(group, query)
    torch.testing.assert_close(attend(step, group, query), expected, atol=2e-6, rtol=2e-5)
    torch.testing.assert_close(attend(step, group, query, is_invariant=False), expected, atol=2e-6, rtol=2e-5)


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
@pytest.mark.parametrize("case", CASES)
def test_keys_and_values_of_8_bits(case: str, group: KvGroup) -> None:
    scales = KvScales(key_exponent=-1, value_exponent=2)
    step = Step(*CASES[case], 4, seed=len(case))
    step.narrow(scales)
    query = step.query(group)
    torch.testing.assert_close(
        attend(step, group, query, scales=scales), step.expected(group, query), atol=1e-5, rtol=2e-5
    )


def test_positions_and_slots() -> None:
    tables = {"sliding_attention": [[1, 5, 2]], "full_attention": [[7, 3, 0]]}
    batch = QueryBatch((3,), (7,), (10,), tables)
    metadata = ReferenceBackend(NUM_HEADS).prepare(batch, GROUPS, 4)
    assert metadata.positions.tolist() == [7, 8, 9]
    assert metadata.slot_mapping["sliding_attention"].tolist() == [5 * 4 + 3, 2 * 4, 2 * 4 + 1]
    assert metadata.slot_mapping["full_attention"].tolist() == [3 * 4 + 3, 0, 1]


def test_a_single_row_is_planned_twice() -> None:
    tables = {"sliding_attention": [[1]], "full_attention": [[0]]}
    metadata = ReferenceBackend(NUM_HEADS).prepare(QueryBatch((1,), (2,), (3,), tables), GROUPS, 4)
    assert (metadata.num_tokens, metadata.num_rows) == (1, 2)
    assert metadata.positions.tolist() == [2, 2]
    assert metadata.slot_mapping["sliding_attention"].tolist() == [6, 6]


def test_a_drafters_row_needs_no_slot() -> None:
    tables = {"sliding_attention": [[1]], "full_attention": [[0]]}
    backend = ReferenceBackend(NUM_HEADS, is_batch_invariant=False)
    metadata = backend.prepare(QueryBatch((1,), (4,), (4,), tables), GROUPS, 4)
    assert metadata.slot_mapping["full_attention"].tolist() == [-1]


@pytest.mark.parametrize(
    ("table", "message"), [([-1, -1, 4], "released"), ([3, -1, 4], "released"), ([-1, 2], "missing")]
)
def test_a_visible_key_without_a_block_is_a_defect(table: list[int], message: str) -> None:
    batch = QueryBatch((1,), (9,), (10,), {"sliding_attention": [table]})
    with pytest.raises(AssertionError, match=message):
        ReferenceBackend(NUM_HEADS).prepare(batch, [SLIDING], 4)


@pytest.mark.parametrize(
    "fields",
    [
        ((), (), (), {}),
        ((1,), (0, 1), (1,), {"full_attention": [[0]]}),
        ((0,), (0,), (1,), {"full_attention": [[0]]}),
        ((1,), (0,), (0,), {"full_attention": [[0]]}),
        ((1,), (0,), (1,), {"full_attention": []}),
    ],
)
def test_contradictory_batches_are_defects(fields: tuple) -> None:
    with pytest.raises(AssertionError):
        QueryBatch(*fields)


@pytest.mark.parametrize("lens", [[4, 4, 4], [7, 9, 2], [130, 1, 20]])
@pytest.mark.parametrize("starts", [[60, 37, 120], [370, 380, 505], [1020, 3, 640], [1390, 1530, 1910]])
@pytest.mark.parametrize("window", [None, 5, 128, 300])
def test_a_row_does_not_depend_on_the_others(window: int | None, starts: list[int], lens: list[int]) -> None:
    """Rows of three sequences at once, and each row alone, around the sizes at which sums are cut."""
    group = KvGroup("group", (0,), num_kv_heads=2, head_dim=16, window=window)
    generator = torch.Generator().manual_seed(0)
    kv = torch.randn(400 * 16, *group.slot_shape, generator=generator)
    blocks = torch.randperm(400, generator=generator).tolist()
    tables = [blocks[:130], blocks[130:260], blocks[260:390]]
    query = torch.randn(sum(lens), NUM_HEADS, 16, generator=generator)
    backend = ReferenceBackend(NUM_HEADS)

    def run(rows: torch.Tensor, batch: QueryBatch) -> torch.Tensor:
        metadata = backend.prepare(batch, [group], 16)
        return backend.attend(rows.expand(metadata.num_rows, -1, -1), kv, metadata.plans["group"])

    ends = tuple(start + length for start, length in zip(starts, lens, strict=True))
    together = run(query, QueryBatch(tuple(lens), tuple(starts), ends, {"group": tables}))
    row = 0
    for table, start, end in zip(tables, starts, ends, strict=True):
        for position in range(start, end):
            alone = QueryBatch((1,), (position,), (position + 1,), {"group": [table]})
            assert_alike(run(query[row : row + 1], alone)[0], together[row])
            row += 1
