"""The product of few rows: the kernel, interpreted, against float64."""

import pytest
import torch

from tandem.models.gemma4.skinny_kernel import SkinnyProduct, Tiling, tiling_of

SHAPES_OF_31B = [  # in_features, out_features
    (5376, 16384),
    (5376, 18432),
    (8192, 5376),
    (16384, 5376),
    (5376, 43008),
    (21504, 5376),
    (5376, 262144),
    (10752, 1024),
    (1024, 16384),
    (8192, 1024),
    (1024, 262144),
    (1024, 5376),
]


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("num_splits", [1, 2, 5])
@pytest.mark.parametrize("num_rows", [1, 16, 21, 100])
@pytest.mark.parametrize(("in_features", "out_features"), [(96, 64), (88, 100), (160, 33)])
def test_what_plain_torch_gives(in_features: int, out_features: int, num_rows: int, num_splits: int) -> None:
    """At sizes that fill no block, twice: the second finds what the first has left behind."""
    rows, weights = random(0, num_rows, in_features), random(1, out_features, in_features)
    product = SkinnyProduct(weights, Tiling(block_out=32, block_in=16, num_stages=2, num_splits=num_splits))
    expected = (rows.double() @ weights.double().t()).float()
    for _ in range(2):
        torch.testing.assert_close(product(rows), expected, atol=1e-4, rtol=0.0)


@pytest.mark.parametrize(("in_features", "out_features"), [*SHAPES_OF_31B, (8, 8), (24, 200), (2816, 128)])
def test_every_part_has_work(in_features: int, out_features: int) -> None:
    tilings = [tiling_of(out_features, in_features, block_rows) for block_rows in (16, 32, 64, 128)]
    assert all(1 <= tiling.num_splits <= -(-in_features // tiling.block_in) for tiling in tilings)


@pytest.mark.parametrize(("in_features", "out_features"), SHAPES_OF_31B)
def test_the_number_of_rows_changes_no_split(in_features: int, out_features: int) -> None:
    tilings = [tiling_of(out_features, in_features, block_rows) for block_rows in (16, 32, 64, 128)]
    assert len({tiling.num_splits for tiling in tilings}) == 1
    if tilings[0].num_splits > 1:
        assert len({tiling.block_in for tiling in tilings}) == 1, "parts begin at multiples of a block"


def test_a_cpu_has_no_such_product() -> None:
    assert not SkinnyProduct.supports(torch.empty(64, 64, dtype=torch.bfloat16))
