"""Sampling fields of slots by the kernel, interpreted on the CPU, against plain indexing."""

import torch

from tandem.sampling.rows import NO_TOP_K, SamplingRows
from tandem.sampling.rows_kernel import read_rows


def test_rows_of_slots():
    fields = (
        torch.tensor([0.0, 0.8, 1.5, 0.0], dtype=torch.float64),
        torch.tensor([0, 64, 0, 3]),
        torch.tensor([1.0, 0.95, 0.3, 0.5], dtype=torch.float64),
        torch.tensor([0.0, 0.1, 0.0, 0.2], dtype=torch.float64),
        torch.tensor([5, -1, 1 << 40, 7]),
    )
    slots = torch.tensor([2, 0, 1])
    for num_rows in (1, 50):
        positions = torch.arange(3 * num_rows)
        expected = SamplingRows.from_slots(*fields, slots, positions)
        floats, integers = read_rows(*fields, slots, num_rows, NO_TOP_K)
        assert floats.equal(torch.stack((expected.temperature, expected.top_p, expected.min_p)))
        assert integers.equal(torch.stack((expected.top_k, expected.seeds)))
        assert expected.seeds.tolist() == [1 << 40] * num_rows + [5] * num_rows + [-1] * num_rows
