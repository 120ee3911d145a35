"""The product of rows and a matrix of weights: every projection of the networks.

Several projections of a checkpoint share one matrix here, so that one product replaces two or three. Steps of few rows,
in bfloat16 on a Hopper GPU, go through a kernel of our own: it is faster there than torch's product, and a row
rounds the same however many others the step has.
"""

from typing import TYPE_CHECKING

import torch

from tandem.models.gemma4.parameters import Destination, columns, empty_matrix

if TYPE_CHECKING:
    from tandem.models.gemma4.skinny_kernel import SkinnyProduct


class Linear:
    """y = x W, without a bias. On a GPU, on one stream at a time."""

    def __init__(self, in_features: int, out_features: int, dtype: torch.dtype, device: torch.device) -> None:
        """Allocates W; `destination` says what to fill."""
        self._hold(empty_matrix(in_features, out_features, dtype, device))

    @staticmethod
    def weights_dtype(dtype: torch.dtype) -> torch.dtype:
        """The format that weights are kept in where rows are of `dtype`."""
        return dtype

    @staticmethod
    def of(matrix: torch.Tensor) -> "Linear":  # [in_features, out_features]
        """The product with a matrix that exists, such as a token table turned round."""
        linear = object.__new__(Linear)
        linear._hold(matrix)
        return linear

    def destination(self, start: int = 0, stop: int | None = None) -> Destination:
        """Of a checkpoint's [stop - start, in_features]: outputs `start` to `stop`, or all of them."""
        return columns(self._matrix, start, self._matrix.shape[1] if stop is None else stop)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:  # [T, in_features] -> [T, out_features]
        """The rows, projected."""
        if self._skinny is not None and 0 < len(rows) <= self._skinny.max_rows:
            return self._skinny(rows)
        return torch.mm(rows, self._matrix)

    def _hold(self, matrix: torch.Tensor) -> None:  # [in_features, out_features]
        self._matrix = matrix
        self._skinny = _skinny_product_of(matrix.t())


def _skinny_product_of(weights: torch.Tensor) -> "SkinnyProduct | None":  # [out_features, in_features]
    if weights.device.type != "cuda":
        return None
    from tandem.models.gemma4.skinny_kernel import SkinnyProduct

    return SkinnyProduct(weights) if SkinnyProduct.supports(weights) else None
