"""The paged kernels, interpreted on the CPU, against attention written out key by key and against the reference."""

import numpy as np
import pytest
import torch
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

from tandem.attention import paged, paged_kernel
from tandem.attention.device_batch import DeviceBatch
from tandem.attention.manner import Manner
from tandem.attention.metadata import QueryBatch
from tandem.attention.paged import PagedBackend
from tandem.attention.reference import ReferenceBackend
from tandem.attention.splits import SplitSizes
from tandem.kv_cache.group import KvGroup
from tandem.kv_cache.scales import UNSCALED, KvScales
from tests.unit.attention.test_reference_backend import CASES, GROUPS, NUM_HEADS, Step

UNSEEN = 400.0  # any number, which 8 bits can hold too: slots hold nothing else
# Splits that change their size soon: the interpreter is slow.
CHANGING = SplitSizes(((0, 64), (256, 128), (4096, 256)))


def attend(step, group, query, scales=UNSCALED):
    metadata = PagedBackend(NUM_HEADS, "cpu", torch.float32).prepare(step.batch, GROUPS, step.block_size)
    backend = PagedBackend(NUM_HEADS, "cpu", torch.float32)
    return backend.attend(query, step.kv[group.name], metadata.plans[group.name], scales)


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
@pytest.mark.parametrize("block_size", [4, 16])
@pytest.mark.parametrize("case", CASES)
def test_equals_attention_written_out(case, block_size, group):
    step = Step(*CASES[case], block_size, seed=len(case), unseen=UNSEEN)
    query = step.query(group)
    torch.testing.assert_close(attend(step, group, query), step.expected(group, query), atol=2e-6, rtol=2e-5)


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
@pytest.mark.parametrize("case", ["verify", "mixed"])
def test_keys_and_values_of_8_bits(case, group):
    scales = KvScales(key_exponent=-1, value_exponent=2)
    step = Step(*CASES[case], 4, seed=len(case), unseen=UNSEEN)
    step.narrow(scales)
    query = step.query(group)
    torch.testing.assert_close(attend(step, group, query, scales), step.expected(group, query), atol=1e-5, rtol=2e-5)


def test_positions_and_slots_are_those_of_the_reference():
    tables = {"sliding_attention": [[1, 5, 2], [4, 0]], "full_attention": [[7, 3, 0], [1, 2]]}
    batch = QueryBatch((3, 1), (7, 5), (10, 5), tables)
    ours, theirs = (
        backend.prepare(batch, GROUPS, 4)
        for backend in (PagedBackend(NUM_HEADS, "cpu", torch.float32), ReferenceBackend(NUM_HEADS))
    )
    assert ours.positions.tolist() == theirs.positions.tolist()
    for group in ("sliding_attention", "full_attention"):
        assert ours.slot_mapping[group].tolist() == theirs.slot_mapping[group].tolist()


@pytest.fixture
def products_by_row(monkeypatch):
    """The interpreter's products come from numpy, which on some CPUs rounds a row by its place among the others."""

    def create_dot(_builder, a, b, sums, *_options):
        return TensorHandle(np.einsum("ij,jk->ik", a.data, b.data) + sums.data, sums.dtype.scalar)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)


@pytest.mark.usefixtures("products_by_row")
@pytest.mark.parametrize("window", [None, 200])
@pytest.mark.parametrize("start", [120, 252])
def test_a_row_does_not_depend_on_the_others(window, start, monkeypatch):
    """Bit for bit, across the places where keys are cut and where the size of a cut changes."""
    monkeypatch.setattr(paged, "GROWING", CHANGING)
    group = KvGroup("group", (0,), num_kv_heads=2, head_dim=16, window=window)
    generator = torch.Generator().manual_seed(0)
    kv = torch.randn(30 * 16, *group.slot_shape, generator=generator)
    blocks = torch.randperm(30, generator=generator).tolist()
    query = torch.randn(12, NUM_HEADS, 16, generator=generator)
    backend = PagedBackend(NUM_HEADS, "cpu", torch.float32)

    def run(rows, batch):
        return backend.attend(rows, kv, backend.prepare(batch, [group], 16).plans["group"])

    tables = [blocks[:20], blocks[20:]]
    together = run(query, QueryBatch((8, 4), (start, 30), (start + 8, 34), {"group": tables}))
    for row in range(8):
        alone = QueryBatch((1,), (start + row,), (start + row + 1,), {"group": tables[:1]})
        assert torch.equal(run(query[row : row + 1], alone)[0], together[row])


@pytest.mark.parametrize("num_rows", [1, 5, 8])
def test_a_round_planned_on_the_device_attends_like_one_planned_on_the_host(num_rows, monkeypatch):
    """Across places where cuts change size, and with a sequence whose rows run out of its blocks."""
    monkeypatch.setattr(paged, "GROWING", CHANGING)
    group = KvGroup("group", (0,), num_kv_heads=2, head_dim=16, window=None)
    generator = torch.Generator().manual_seed(0)
    kv = torch.randn(31 * 16, *group.slot_shape, generator=generator)
    blocks = torch.randperm(30, generator=generator).tolist()
    starts = [252, 30, 0]
    tables = [blocks[:18], blocks[18:22], blocks[22:24]]
    query = torch.randn(num_rows * len(starts), NUM_HEADS, 16, generator=generator)
    backend = PagedBackend(NUM_HEADS, "cpu", torch.float32)
    ends = [start + num_rows for start in starts]
    batch = QueryBatch((num_rows,) * len(starts), tuple(starts), tuple(ends), {"group": tables})
    expected = backend.prepare(batch, [group], 16)

    table = torch.full((5, 25), -1, dtype=torch.int32)
    slots = [3, 0, 2]
    for slot, blocks_of_one in zip(slots, tables, strict=True):
        table[slot, : len(blocks_of_one)] = torch.tensor(blocks_of_one)
    on_device = DeviceBatch(
        torch.tensor(slots), torch.tensor(starts), torch.tensor(ends), num_rows, 300, {"group": table}, {"group": 30}
    )
    found = backend.prepare_on_device(on_device, [group], 16)
    assert found.positions.equal(expected.positions)
    assert found.slot_mapping["group"].equal(expected.slot_mapping["group"])
    attended = backend.attend(query, kv, found.plans["group"])
    assert attended.equal(backend.attend(query, kv, expected.plans["group"]))


def test_rows_without_a_block_write_where_nobody_reads():
    table = torch.tensor([[4, -1, 7]], dtype=torch.int32)
    batch = DeviceBatch(torch.tensor([0]), torch.tensor([2]), torch.tensor([14]), 12, 20, {"g": table}, {"g": 9})
    backend = PagedBackend(NUM_HEADS, "cpu", torch.float32)
    metadata = backend.prepare_on_device(batch, [KvGroup("g", (0,), 1, 16, None)], 4)
    assert metadata.slot_mapping["g"].tolist() == [18, 19, *range(36, 40), *range(28, 32), 36, 37]


@pytest.mark.parametrize("window", [200, None])
def test_keys_far_into_a_text(window):
    """Where splits have become larger."""
    group = KvGroup("group", (0,), num_kv_heads=1, head_dim=16, window=window)
    generator = torch.Generator().manual_seed(0)
    kv, query = (torch.randn(size, 1, 16, generator=generator) for size in (9008 * 2, 2 * NUM_HEADS))
    kv, query = kv.view(9008, 2, 1, 16), query.view(2, NUM_HEADS, 16)
    backend = PagedBackend(NUM_HEADS, "cpu", torch.float32)
    batch = QueryBatch((2,), (8999,), (9001,), {"group": [list(range(563))]})
    found = backend.attend(query, kv, backend.prepare(batch, [group], 16).plans["group"])
    for row in range(2):
        seen = kv[max(0, 9000 + row - (window or 9000 + row)) : 9000 + row, :, 0].double()
        expected = (query[row].double() @ seen[:, 0].t()).softmax(-1) @ seen[:, 1]
        torch.testing.assert_close(found[row].double(), expected, atol=1e-5, rtol=1e-5)


WAYS = {
    "whole pieces": {"WHOLE_FROM": 1},
    "one program for all splits": {"_SPLIT_PROGRAMS": 1},
    "half a head": {"manner_of": lambda *_: Manner(32, 8, 4, 1)},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("lengths", [(8, 8), (3, 1)])
def test_it_rounds_alike_however_splits_are_shared_out(lengths, way, monkeypatch):
    group = KvGroup("group", (0,), num_kv_heads=2, head_dim=16, window=200)
    generator = torch.Generator().manual_seed(0)
    kv = torch.randn(60 * 16, *group.slot_shape, generator=generator)
    blocks = torch.randperm(60, generator=generator).tolist()
    query = torch.randn(sum(lengths), NUM_HEADS, 16, generator=generator)
    backend = PagedBackend(NUM_HEADS, "cpu", torch.float32)
    starts = (330, 30)
    ends = tuple(start + length for start, length in zip(starts, lengths, strict=True))
    plan = backend.prepare(QueryBatch(lengths, starts, ends, {"group": [blocks[:30], blocks[30:]]}), [group], 16)
    split = backend.attend(query, kv, plan.plans["group"])
    for name, value in WAYS[way].items():
        monkeypatch.setattr(paged_kernel, name, value)
    assert backend.attend(query, kv, plan.plans["group"]).equal(split)
