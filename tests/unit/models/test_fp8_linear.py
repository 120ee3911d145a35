"""8-bit weights: how they are rounded, in which pieces they come, and what they multiply to."""

from pathlib import Path

import pytest
import torch

from tandem.models.gemma4.fp8_kernel import arrivals_for, multiply
from tandem.models.gemma4.fp8_linear import FP8, LARGEST, Fp8Linear
from tandem.models.gemma4.linear import Linear
from tandem.models.gemma4.weights import load_target
from tests.checkpoints import VARIANTS, make_tiny_pair
from tests.unit.models.paged import PagedRunner

IN_FEATURES, OUT_FEATURES = 40, 24
CPU = torch.device("cpu")
HALF_STEP = 2.0**-4  # of a number with three bits after its first
TOKEN_IDS = [2, 5, 9, 33, 7]


def weights(seed: int = 0) -> torch.Tensor:  # -> [OUT_FEATURES, IN_FEATURES]
    """Outputs of very different sizes, and one of zeros."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.logspace(-6, 3, OUT_FEATURES).unsqueeze(1)
    matrix = torch.randn(OUT_FEATURES, IN_FEATURES, generator=generator) * sizes
    matrix[3] = 0.0
    return matrix


def made_of(matrix: torch.Tensor, dtype: torch.dtype = torch.float32) -> Fp8Linear:  # [out_features, in_features]
    linear = Fp8Linear(matrix.shape[1], matrix.shape[0], dtype, CPU)
    linear.destination().write(matrix)
    return linear


def kept(linear: Fp8Linear, in_features: int = IN_FEATURES) -> torch.Tensor:  # -> [out_features, in_features]
    """The weights as they are after rounding: what the unit vectors are projected to."""
    return linear(torch.eye(in_features)).t()


def test_every_weight_is_within_half_a_step_of_its_own() -> None:
    matrix = weights()
    largest = matrix.abs().amax(1, keepdim=True)
    # Below the smallest number with all its bits, steps no longer shrink.
    step = torch.maximum(matrix.abs(), largest / LARGEST * 2.0**-6)
    error = (kept(made_of(matrix)) - matrix).abs()
    assert (error <= step * HALF_STEP * 1.0001).all()
    assert error.max() > 0.0


def test_the_largest_weight_of_each_output_is_kept() -> None:
    matrix = weights()
    at = matrix.abs().argmax(1, keepdim=True)
    torch.testing.assert_close(kept(made_of(matrix)).gather(1, at), matrix.gather(1, at))


def test_numbers_of_the_format_are_kept_to_the_bit() -> None:
    """Each output with a scale of its own, a power of two."""
    generator = torch.Generator().manual_seed(0)
    numbers = (torch.randn(OUT_FEATURES, IN_FEATURES, generator=generator) * 50).to(FP8).float()
    numbers[:, 0] = LARGEST
    matrix = numbers * 2.0 ** torch.arange(-OUT_FEATURES // 2, OUT_FEATURES // 2).unsqueeze(1)
    assert torch.equal(kept(made_of(matrix)), matrix)


def test_pieces_make_the_same_matrix_as_the_whole() -> None:
    """Two tensors of a checkpoint, side by side in one matrix, each in pieces of rows."""
    matrix = weights()
    linear = Fp8Linear(IN_FEATURES, OUT_FEATURES, torch.float32, CPU)
    for first, last in ((0, 10), (10, OUT_FEATURES)):
        destination = linear.destination(first, last)
        assert destination.shape == (last - first, IN_FEATURES)
        for start in range(0, last - first, 4):
            destination.write(matrix[first + start : min(first + start + 4, last)], start)
    assert torch.equal(kept(linear), kept(made_of(matrix)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_of_the_rounded_weights(dtype: torch.dtype) -> None:
    linear = made_of(weights(), dtype)
    rows = torch.randn(7, IN_FEATURES, generator=torch.Generator().manual_seed(1)).to(dtype)
    expected = rows.double() @ kept(linear).t().double()
    product = linear(rows)
    assert product.dtype == dtype
    atol = expected.abs().amax(0) * (1e-6 if dtype == torch.float32 else 2.0**-7)
    assert ((product.double() - expected).abs() <= atol).all()


def test_weights_take_a_byte() -> None:
    linear = made_of(weights())
    (view,) = linear.destination().views
    assert view.nbytes == IN_FEATURES * OUT_FEATURES


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_target_of_8_bits_is_near_its_own(variant: str, tmp_path: Path) -> None:
    """And not equal: the layers' weights are rounded. All that is no projection of a layer is as in the checkpoint."""
    path, _ = make_tiny_pair(tmp_path, **VARIANTS[variant])
    plain, rounded = (load_target(path, torch.float32, "cpu", linear=linear) for linear in (Linear, Fp8Linear))
    assert torch.equal(plain.embed_tokens, rounded.embed_tokens)
    rows, expected = (PagedRunner(target).step({"a": TOKEN_IDS})["a"] for target in (rounded, plain))
    error = (rows - expected).norm() / expected.norm()
    assert 1e-3 < error < 0.3


@pytest.mark.parametrize(("in_features", "out_features"), [(48, 24), (1008, 100), (256, 70)])
def test_the_kernel_agrees_with_plain_torch(in_features: int, out_features: int) -> None:
    """At sizes that fill no block; a row has the same bits among few rows, whose splits meet, and among many."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(out_features, in_features, generator=generator)
    rows = torch.randn(40, in_features, generator=generator)
    linear = made_of(matrix)
    destination = linear.destination()
    narrow, arrivals = destination.views[0].contiguous(), arrivals_for(out_features, CPU)
    together = multiply(rows, narrow, destination.scales, arrivals)
    torch.testing.assert_close(together, linear(rows), atol=1e-4, rtol=0.0)
    for count in (1, 20):
        for _ in range(2):
            assert torch.equal(multiply(rows[:count], narrow, destination.scales, arrivals), together[:count])
            assert not arrivals.any()
