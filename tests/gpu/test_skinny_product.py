"""The product of few rows on a GPU in bfloat16, against float64 at the shapes of 31B and its drafter."""

import pytest
import torch

from tandem.models.gemma4.linear import Linear
from tandem.models.gemma4.skinny_kernel import SkinnyProduct

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

DEVICE = torch.device("cuda")
MAX_ROWS = SkinnyProduct.max_rows
SHAPES = [  # in_features, out_features
    (5376, 16384),
    (5376, 18432),
    (8192, 5376),
    (16384, 5376),
    (5376, 43008),
    (21504, 5376),
    (10752, 1024),
    (1024, 8192),
    (1024, 16384),
    (8192, 1024),
    (16384, 1024),
    (1024, 5376),
]
UNEVEN = [(2816, 128), (40, 8), (72, 1000), (1544, 333)]  # that fill no block
HEADS = [(1024, 262144), (5376, 262144)]
ROWS = (1, 2, 8, 16, 17, 64, MAX_ROWS)


def random(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator(DEVICE).manual_seed(seed)
    return torch.randn(*shape, generator=generator, device=DEVICE, dtype=torch.bfloat16)


def assert_rounded(output: torch.Tensor, expected: torch.Tensor) -> None:  # [T, out_features], and in float64
    """Once to bfloat16, from sums whose terms were rounded to float32."""
    error = (output.double() - expected).abs() - expected.abs() * 2**-8
    assert (error < 2e-4 * expected.square().mean().sqrt()).all()


@pytest.mark.parametrize(("in_features", "out_features"), [*SHAPES, *UNEVEN, *HEADS])
def test_what_float64_gives(in_features: int, out_features: int) -> None:
    """And twice the same: the second product finds what the first has left behind."""
    rows, weights = random(0, MAX_ROWS, in_features), random(1, out_features, in_features)
    product = SkinnyProduct(weights)
    outputs = [product(rows) for _ in range(2)]
    assert torch.equal(*outputs)
    for part in range(0, out_features, 1 << 15):
        places = slice(part, part + (1 << 15))
        expected = rows.double() @ weights[places].double().t()
        assert_rounded(outputs[0][:, places], expected)


@pytest.mark.parametrize(("in_features", "out_features"), [*SHAPES, *UNEVEN, *HEADS])
def test_a_row_rounds_as_it_does_alone(in_features: int, out_features: int) -> None:
    rows, product = random(0, MAX_ROWS, in_features), SkinnyProduct(random(1, out_features, in_features))
    alone = torch.cat([product(row[None]) for row in rows])
    for count in ROWS:
        assert torch.equal(product(rows[:count]), alone[:count])
        assert torch.equal(product(rows[-count:]), alone[-count:])


@pytest.mark.parametrize("count", [1, 8, 64])
def test_a_captured_graph_follows_its_rows(count: int) -> None:
    """Products that feed each other, as those of a step do."""
    up, down = SkinnyProduct(random(1, 16384, 1024)), SkinnyProduct(random(2, 1024, 16384))
    rows = random(0, count, 1024)

    def chain() -> torch.Tensor:
        hidden = rows
        for _ in range(4):
            hidden = down(up(hidden).mul_(2**-5)).mul_(2**-7)
        return hidden

    chain()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = chain()
    for seed in range(3, 13):
        rows.copy_(random(seed, count, 1024))
        graph.replay()
        replayed = output.clone()
        assert torch.equal(replayed, chain())


def test_weights_that_change_just_before() -> None:
    """What is asked for early is not what is computed with."""
    weights, rows = random(0, 16384, 1024), random(1, 8, 1024)
    product = SkinnyProduct(weights)
    for seed in range(2, 12):
        weights.copy_(random(seed, 16384, 1024))
        product_after = product(rows)
        torch.cuda.synchronize()
        assert torch.equal(product_after, product(rows))


def test_the_host_never_waits() -> None:
    rows, product = random(0, 8, 1024), SkinnyProduct(random(1, 1024, 1024))
    product(rows)
    torch.cuda.set_sync_debug_mode("error")
    try:
        product(rows)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("count", [0, 1, MAX_ROWS, MAX_ROWS + 1, 300])
def test_any_number_of_rows(count: int) -> None:
    linear = Linear(1024, 512, torch.bfloat16, DEVICE)
    (view,) = linear.destination().views
    view.copy_(random(1, 512, 1024))
    rows = random(0, count, 1024)
    expected = rows.double() @ view.double().t()
    output = linear(rows)
    assert output.shape == (count, 512)
    assert_rounded(output, expected)
