"""The weights of all experts of a layer: one matrix for each of them, in one tensor."""

import torch

from tandem.models.gemma4.fp8_linear import FP8, ScaledRows
from tandem.models.gemma4.parameters import Destination, empty_matrices, stacked


class ExpertMatrices:
    """As many matrices as experts, of the activations' format or of 8 bits."""

    def __init__(
        self, count: int, in_features: int, out_features: int, weights_dtype: torch.dtype, device: torch.device
    ) -> None:
        """Allocates; `destination` says what to fill."""
        self.matrices = empty_matrices(count, in_features, out_features, weights_dtype, device)  # [count, in, out]
        # What each output is multiplied by, where weights have 8 bits; as `fp8_linear` says.
        self.scales = (  # [count, out_features]
            torch.empty(count, out_features, dtype=torch.float32, device=device) if weights_dtype == FP8 else None
        )

    def destination(self) -> Destination:
        """Of a checkpoint's [count, out_features, in_features]."""
        if self.scales is None:
            return stacked(self.matrices)
        view = self.matrices.transpose(1, 2)
        return ScaledRows(tuple(view.shape), (view,), scales=self.scales)

    def wide(self, dtype: torch.dtype) -> torch.Tensor:  # -> [count, in_features, out_features]
        """The matrices in a format to compute with: themselves, or a copy."""
        if self.scales is None:
            return self.matrices
        return self.matrices.to(dtype).mul_(self.scales.unsqueeze(1))
