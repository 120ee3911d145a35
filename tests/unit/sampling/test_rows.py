from dataclasses import fields

import torch

from tandem.core.sampling_params import SamplingParams
from tandem.sampling.rows import SamplingRows

GREEDY = SamplingParams(temperature=0.0, top_k=40)
PLAIN = SamplingParams(temperature=1.3, seed=2**63 - 1)
NARROW = SamplingParams(temperature=0.5, top_k=64, top_p=0.95, min_p=0.1, seed=7)


def test_both_constructors_agree() -> None:
    pairs = [(GREEDY, 3), (PLAIN, 2**31 - 1), (NARROW, 0)]
    from_params = SamplingRows.from_params(pairs)
    from_tensors = SamplingRows.from_tensors(
        temperature=torch.tensor([params.temperature for params, _ in pairs], dtype=torch.float64),
        top_k=torch.tensor([params.top_k for params, _ in pairs], dtype=torch.int32),
        top_p=torch.tensor([params.top_p for params, _ in pairs], dtype=torch.float64),
        min_p=torch.tensor([params.min_p for params, _ in pairs], dtype=torch.float64),
        seeds=torch.tensor([params.seed for params, _ in pairs]),
        positions=torch.tensor([position for _, position in pairs], dtype=torch.int32),
    )
    for declared in fields(SamplingRows):
        left, right = getattr(from_params, declared.name), getattr(from_tensors, declared.name)
        if isinstance(left, torch.Tensor):
            assert left.dtype == right.dtype and left.equal(right), declared.name
        else:
            assert left == right, declared.name


def test_facts_about_the_batch() -> None:
    def facts(*batch: SamplingParams) -> tuple[bool, int | None]:
        rows = SamplingRows.from_params([(params, 0) for params in batch])
        return rows.is_all_greedy, rows.max_top_k

    assert facts(GREEDY, GREEDY) == (True, 1)
    assert facts(GREEDY, NARROW) == (False, 64)
    assert facts(NARROW, PLAIN) == (False, None)
    assert facts() == (True, 1)


def test_rows_move_to_other_positions() -> None:
    rows = SamplingRows.from_params([(NARROW, 4)])
    assert rows.at(torch.tensor([9])).positions.tolist() == [9]
    assert rows.positions.tolist() == [4]
