"""The norm of every layer and head."""

from collections.abc import Callable
from functools import cache
from math import sqrt

import torch
import torch.nn.functional as F

from tandem.models.gemma4.parameters import Destination


class RmsNorm:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension, computed in float32.

    torch's own is made of seven operations on a CPU. There, the root of sum(x^2) + d * eps is a `hypot`, which leaves
    four; sqrt(d) goes into the weight.
    """

    def __init__(self, shape: tuple[int, ...], eps: float, dtype: torch.dtype, device: torch.device) -> None:
        """`shape` is that of the weight: [d], or [heads, d] for one weight a head."""
        self._dim, self.eps = shape[-1], eps
        self._is_short = device.type == "cpu" and dtype == torch.float32
        self._is_fused = device.type == "cuda" and len(shape) == 1
        self._gain = sqrt(self._dim) if self._is_short else 1.0
        self._floor = torch.tensor(sqrt(self._dim * eps), device=device)
        self.weight = torch.full(shape, self._gain, dtype=dtype, device=device)

    def destination(self, start: int = 0, stop: int | None = None) -> Destination:
        """Of a checkpoint's [d], repeated for heads `start` to `stop` where there is a weight a head."""
        view = self.weight if self.weight.dim() == 1 else self.weight[start:stop]
        return Destination((self._dim,), (view,), self._gain)

    def largest_weight(self, start: int, stop: int) -> float:
        """The largest magnitude in the weights of heads `start` to `stop`."""
        return float(self.weight[start:stop].abs().max()) / self._gain

    def __call__(self, x: torch.Tensor) -> torch.Tensor:  # [..., d] or [..., heads, d] -> same
        """The normed rows."""
        if self._is_fused and x.dim() == 2:
            return _norm_rows()(x, self.weight, self.eps)[0]
        if self._is_short:
            return x.div(self._length(x)).mul_(self.weight)
        if self.weight.dim() == 1:
            return F.rms_norm(x, (self._dim,), self.weight, self.eps)
        return F.rms_norm(x.float(), (self._dim,), None, self.eps).mul_(self.weight).to(x.dtype)

    def add_to(self, residual: torch.Tensor, x: torch.Tensor) -> torch.Tensor:  # [..., d] twice -> [..., d]
        """`residual` plus the normed rows. Overwrites `x`."""
        if self._is_fused and x.dim() == 2:
            return _norm_rows()(x, self.weight, self.eps, residual)[0]
        if self._is_short:
            length = self._length(x)
            return torch.addcdiv(residual, x.mul_(self.weight), length)
        return residual + self(x)

    def add_then(
        self,
        residual: torch.Tensor,  # [T, d]
        x: torch.Tensor,  # [T, d]
        following: "RmsNorm",
        scalar: torch.Tensor | None = None,  # [1]
    ) -> tuple[torch.Tensor, torch.Tensor]:  # [T, d] twice
        """`add_to`, times a scalar if there is one, and that normed by the norm that follows."""
        if self._is_fused:
            return _norm_rows()(x, self.weight, self.eps, residual, scalar, following.weight, following.eps)
        total = self.add_to(residual, x)
        if scalar is not None:
            total.mul_(scalar)
        return total, following(total)

    def _length(self, x: torch.Tensor) -> torch.Tensor:  # [..., d] -> [..., 1]
        return torch.hypot(torch.linalg.vector_norm(x, 2, -1, True), self._floor)


@cache
def _norm_rows() -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    from tandem.models.gemma4.norm_kernel import norm_rows  # needs Triton, which a CPU does without

    return norm_rows
