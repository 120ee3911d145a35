"""Where a checkpoint's tensors go.

Several of them share one matrix here, so that one product replaces two or three. A matrix is used as `x @ matrix`, so
it is `[in_features, out_features]`. On a CPU it lies in memory that way too: skinny products run faster than with its
transpose, and a row's result does not depend on how many rows there are, from a few rows on (measured in float32 with
MKL on AVX-512: two or more on one machine, four or more on another). Elsewhere it is a view of the checkpoint's
`[out_features, in_features]`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Self

import torch

MIN_STABLE_ROWS = 4  # of a product on a CPU whose rows are to round the same in any step


@dataclass(frozen=True)
class Part:
    """What is wanted of a tensor: some places of one dimension."""

    dim: int
    places: tuple[range, ...]


@dataclass(frozen=True)
class Destination:
    """Memory that one tensor of a checkpoint is written to, or a part of it."""

    shape: tuple[int, ...]  # that the checkpoint must have
    views: tuple[torch.Tensor, ...]  # each takes what is wanted, repeated to its own shape
    gain: float = 1.0
    part: Part | None = None  # None: all is wanted

    @property
    def rows(self) -> range:
        """Rows of the tensor, its first dimension, of which something is wanted."""
        return self.part.places[0] if self.part and self.part.dim == 0 else range(self.shape[0])

    @property
    def num_wanted(self) -> int:
        """Numbers of the tensor that are wanted."""
        if self.part is None:
            return prod(self.shape)
        return prod(self.shape) // self.shape[self.part.dim] * sum(map(len, self.part.places))

    def of_part(self, dim: int, size: int, *places: range) -> Self:
        """The same memory for `places` of a tensor that has `size` of them in dimension `dim`; one range of rows."""
        assert dim or len(places) == 1
        assert sum(map(len, places)) == self.shape[dim]
        shape = (*self.shape[:dim], size, *self.shape[dim + 1 :])
        return self if shape == self.shape else replace(self, shape=shape, part=Part(dim, places))

    def write(self, rows: torch.Tensor, start: int = 0) -> None:  # [rows, ...] of the tensor
        """Copies, casts and scales the tensor's rows from `start` on; a tensor that is repeated comes whole."""
        assert tuple(rows.shape[1:]) == self.shape[1:]
        is_whole, first = rows.shape[0] == len(self.rows), start - self.rows.start
        for view in self.views:
            destination = view if is_whole else view[first : first + rows.shape[0]]
            destination.copy_(self._wanted(rows))
            if self.gain != 1.0:
                destination.mul_(self.gain)

    def _wanted(self, rows: torch.Tensor) -> torch.Tensor:  # [rows, ...] of the tensor, or of some of its dimensions
        """What is wanted of rows that are."""
        if self.part is None or not 0 < self.part.dim < rows.dim():
            return rows
        dim = self.part.dim
        return torch.cat([rows.narrow(dim, places.start, len(places)) for places in self.part.places], dim)


Destinations = Iterator[tuple[str, Destination]]  # by the tensor's name in the checkpoint


def empty_matrix(in_features: int, out_features: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A matrix to be filled: [in_features, out_features]."""
    if device.type == "cpu":
        return torch.empty(in_features, out_features, dtype=dtype, device=device)
    return torch.empty(out_features, in_features, dtype=dtype, device=device).t()


def empty_matrices(
    count: int, in_features: int, out_features: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """As many matrices of one shape to be filled: [count, in_features, out_features]."""
    if device.type == "cpu":
        return torch.empty(count, in_features, out_features, dtype=dtype, device=device)
    return torch.empty(count, out_features, in_features, dtype=dtype, device=device).transpose(1, 2)


def columns(matrix: torch.Tensor, start: int, stop: int) -> Destination:  # [in_features, out_features]
    """The destination of a checkpoint's [stop - start, in_features] in some columns of a matrix."""
    view = matrix[:, start:stop].t()
    return Destination(tuple(view.shape), (view,))


def stacked(matrices: torch.Tensor) -> Destination:  # [count, in_features, out_features]
    """The destination of a checkpoint's [count, out_features, in_features]."""
    view = matrices.transpose(1, 2)
    return Destination(tuple(view.shape), (view,))
