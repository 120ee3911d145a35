"""The product of 8-bit weights at the sizes of 31B: right, the same bits for any number of rows, and in a graph."""

import pytest
import torch

from tandem.models.gemma4.fp8_linear import Fp8Linear

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

SHAPES = [(5376, 16384), (16384, 5376), (5376, 43008), (21504, 5376)]
NUM_ROWS = (1, 3, 8, 16, 17, 64, 65, 300)


def problem(in_features: int, out_features: int, dtype: torch.dtype) -> tuple[Fp8Linear, torch.Tensor, torch.Tensor]:
    """A product, its weights after rounding [out_features, in_features] float32, and rows."""
    generator = torch.Generator("cuda").manual_seed(out_features)
    matrix = torch.randn(out_features, in_features, generator=generator, device="cuda") / in_features**0.5
    matrix *= torch.logspace(-3, 1, out_features, device="cuda").unsqueeze(1)
    linear = Fp8Linear(in_features, out_features, dtype, torch.device("cuda"))
    destination = linear.destination()
    destination.write(matrix)
    kept = destination.views[0].float() * destination.scales.unsqueeze(1)
    return linear, kept, torch.randn(max(NUM_ROWS), in_features, generator=generator, device="cuda").to(dtype)


@pytest.mark.parametrize(("in_features", "out_features"), SHAPES)
def test_it_agrees_with_float64(in_features: int, out_features: int) -> None:
    linear, kept, rows = problem(in_features, out_features, torch.bfloat16)
    for count in NUM_ROWS:
        expected = rows[:count].double() @ kept.t().double()
        error = (linear(rows[:count]).double() - expected).abs()
        # Half a step of bfloat16, and what float32 sums lose.
        assert (error <= expected.abs() * 2.0**-8 + kept.abs().amax(1) * 1e-3).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("in_features", "out_features"), [*SHAPES, (208, 100)])
def test_a_row_rounds_alike_whatever_else_is_in_the_step(
    in_features: int, out_features: int, dtype: torch.dtype
) -> None:
    linear, _, rows = problem(in_features, out_features, dtype)
    together = linear(rows)
    for count in NUM_ROWS:
        for start in (0, len(rows) - count):
            assert torch.equal(linear(rows[start : start + count]), together[start : start + count])


def test_it_can_be_captured() -> None:
    """A replay counts arrivals anew each time."""
    linear, _, rows = problem(21504, 5376, torch.bfloat16)
    step = rows[:8].clone()
    linear(step)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = linear(step)
    for start in (8, 16, 24):
        step.copy_(rows[start : start + 8])
        graph.replay()
        assert torch.equal(output, linear(rows[start : start + 8]))
