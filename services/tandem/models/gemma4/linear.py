"""The product of rows and a matrix of weights: every projection of the networks.

Several projections of a checkpoint share one matrix here, so that one product replaces two or three.
"""

import torch

from tandem.models.gemma4.parameters import Destination, columns, empty_matrix


class Linear:
    """y = x W, without a bias."""

    def __init__(self, in_features: int, out_features: int, dtype: torch.dtype, device: torch.device) -> None:
        """Allocates W; `destination` says what to fill."""
        self._matrix = empty_matrix(in_features, out_features, dtype, device)

    @staticmethod
    def weights_dtype(dtype: torch.dtype) -> torch.dtype:
        """The format that weights are kept in where rows are of `dtype`."""
        return dtype

    @staticmethod
    def of(matrix: torch.Tensor) -> "Linear":  # [in_features, out_features]
        """The product with a matrix that exists, such as a token table turned round."""
        linear = object.__new__(Linear)
        linear._matrix = matrix
        return linear

    def destination(self, start: int = 0, stop: int | None = None) -> Destination:
        """Of a checkpoint's [stop - start, in_features]: outputs `start` to `stop`, or all of them."""
        return columns(self._matrix, start, self._matrix.shape[1] if stop is None else stop)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:  # [T, in_features] -> [T, out_features]
        """The rows, projected."""
        return torch.mm(rows, self._matrix)
