"""The product of rows and a matrix of 8-bit weights: half the bytes, and bytes are what a step of few rows waits for.

y_o = s_o * sum over i of x_i w_oi,  w_oi in E4M3,  s_o so that the largest weight of output o is E4M3's largest number

The weights of an output have one scale: outputs of one matrix differ in size by much more than the weights of one do.
Rows are not rounded to 8 bits: that would cost quality and, where weights are what a step waits for, gain nothing.

Only a target's projections are kept like this. Norms and scales are small; the token table is read a row at a time by
the drafter too, and as the head it decides between tokens that may be near; and a drafter is small, while each draft
that it gets wrong costs more than its weights.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from tandem.models.gemma4.linear import Linear
from tandem.models.gemma4.parameters import Destination, empty_matrix

FP8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FP8).max


@dataclass(frozen=True, kw_only=True)
class ScaledRows(Destination):
    """Memory for a tensor [..., out_features, in_features] in 8 bits, and for the scale of each output."""

    scales: torch.Tensor  # [..., out_features] float32

    def write(self, rows: torch.Tensor, start: int = 0) -> None:  # [rows, ...] of the tensor
        """Rounds the tensor's rows from `start` on: outputs come whole, so each finds its scale by itself.

        That scale is an output's in all its parts: what is rounded does not depend on who keeps which.
        """
        assert tuple(rows.shape[1:]) == self.shape[1:]
        first = start - self.rows.start
        stop = first + rows.shape[0]
        rows = rows.to(self.scales.device, torch.float32)
        scales = rows.abs().amax(-1).div_(LARGEST)
        scales.masked_fill_(scales == 0.0, 1.0)
        self.scales[first:stop] = self._wanted(scales)
        (view,) = self.views
        view[first:stop].copy_(self._wanted((rows / scales.unsqueeze(-1)).to(FP8)))


class Fp8Linear(Linear):
    """y = x W, without a bias, of weights that are rounded when they are filled."""

    def __init__(self, in_features: int, out_features: int, dtype: torch.dtype, device: torch.device) -> None:
        """Allocates W and its scales; `destination` says what to fill. `dtype` is that of the rows."""
        self._matrix = empty_matrix(in_features, out_features, FP8, device)
        self._scales = torch.empty(out_features, dtype=torch.float32, device=device)

        self._multiply = _product_for(self._matrix, self._scales)

    @staticmethod
    def weights_dtype(dtype: torch.dtype) -> torch.dtype:
        """8 bits, whatever the rows are of."""
        return FP8

    def destination(self, start: int = 0, stop: int | None = None) -> ScaledRows:
        """Of a checkpoint's [stop - start, in_features]: outputs `start` to `stop`, or all of them."""
        view, scales = self._matrix.t()[start:stop], self._scales[start:stop]
        return ScaledRows(tuple(view.shape), (view,), scales=scales)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:  # [T, in_features] -> [T, out_features]
        """The rows, projected."""
        return self._multiply(rows)


def _product_for(
    matrix: torch.Tensor,  # [in_features, out_features] of 8 bits
    scales: torch.Tensor,  # [out_features]
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The product that the matrix' device has."""
    if matrix.device.type == "cuda":
        from tandem.models.gemma4 import fp8_kernel  # needs Triton, which a CPU does without

        if len(matrix) % fp8_kernel.ALIGNMENT == 0:
            arrivals = fp8_kernel.arrivals_for(len(scales), scales.device)
            return lambda rows: fp8_kernel.multiply(rows, matrix.t(), scales, arrivals)
    return lambda rows: torch.mm(rows, matrix.to(rows.dtype)).mul_(scales)
