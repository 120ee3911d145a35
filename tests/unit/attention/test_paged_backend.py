"""The paged kernels, interpreted on the CPU, against attention written out key by key and against the reference."""

import pytest
import torch

from tandem.attention.metadata import QueryBatch
from tandem.attention.paged import PagedBackend
from tandem.attention.reference import ReferenceBackend
from tandem.kv_cache.group import KvGroup
from tandem.kv_cache.scales import UNSCALED, KvScales
from tests.unit.attention.test_reference_backend import CASES, GROUPS, NUM_HEADS, Step


def attend(step, group, query, scales=UNSCALED):
    metadata = PagedBackend(NUM_HEADS, "cpu", torch.float32).prepare(step.batch, GROUPS, step.block_size)
    backend = PagedBackend(NUM_HEADS, "cpu", torch.float32)
    return backend.attend(query, step.kv[group.name], metadata.plans[group.name], scales)


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
@pytest.mark.parametrize("block_size", [4, 16])
@pytest.mark.parametrize("case", CASES)
def test_equals_attention_written_out(case, block_size, group):
    step = Step(*CASES[case], block_size, seed=len(case))
    query = step.query(group)
    torch.testing.assert_close(attend(step, group, query), step.expected(group, query), atol=2e-6, rtol=2e-5)


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
@pytest.mark.parametrize("case", ["verify", "mixed"])
def test_keys_and_values_of_8_bits(case, group):
    scales = KvScales(key_exponent=-1, value_exponent=2)
    step = Step(*CASES[case], 4, seed=len(case))
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


@pytest.mark.parametrize("window", [None, 200])
@pytest.mark.parametrize("start", [120, 2044])
def test_a_row_does_not_depend_on_the_others(window, start):
    """Bit for bit, across the places where keys are cut and where the size of a cut changes."""
    group = KvGroup("group", (0,), num_kv_heads=2, head_dim=16, window=window)
    generator = torch.Generator().manual_seed(0)
    kv = torch.randn(300 * 16, *group.slot_shape, generator=generator)
    blocks = torch.randperm(300, generator=generator).tolist()
    query = torch.randn(12, NUM_HEADS, 16, generator=generator)
    backend = PagedBackend(NUM_HEADS, "cpu", torch.float32)

    def run(rows, batch):
        return backend.attend(rows, kv, backend.prepare(batch, [group], 16).plans["group"])

    tables = [blocks[:150], blocks[150:]]
    together = run(query, QueryBatch((8, 4), (start, 30), (start + 8, 34), {"group": tables}))
    for row in range(8):
        alone = QueryBatch((1,), (start + row,), (start + row + 1,), {"group": tables[:1]})
        assert torch.equal(run(query[row : row + 1], alone)[0], together[row])
