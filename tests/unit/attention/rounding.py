"""What "the same whatever else the step has" can mean on the machine that runs the tests."""

from functools import cache

import torch


@cache
def is_blas_batch_invariant(min_rows: int = 2) -> bool:
    """Whether a row rounds alike among 2, 3, 5, 8 and 40 rows, in a layer's product and in attention's two.

    Of those, counts below `min_rows` are left out.

    So it does in MKL on AVX-512.
    """
    generator = torch.Generator().manual_seed(0)
    rows, weights, keys = (torch.randn(size, 192, generator=generator) for size in (40, 96, 144))
    products = ((rows, weights.t().contiguous()), (rows[:, :16], keys[:, :16].t()), (rows[:, :144], keys[:, :16]))
    return all(
        torch.equal(left[:count] @ right, (left @ right)[:count])
        for left, right in products
        for count in (2, 3, 5, 8)
        if count >= min_rows
    )


def assert_alike(ours: torch.Tensor, theirs: torch.Tensor, min_rows: int = 2) -> None:
    """Bit for bit where the machine allows it for products of at least `min_rows` rows, else within rounding."""
    if is_blas_batch_invariant(min_rows):
        assert torch.equal(ours, theirs)
    torch.testing.assert_close(ours, theirs, atol=1e-5 * max(1.0, float(theirs.abs().max())), rtol=0.0)
