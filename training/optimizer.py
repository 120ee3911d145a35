"""The optimizer of both networks: orthogonalised momentum for matrices, Adam for embeddings and norms."""

from collections import defaultdict

import torch
from torch import Tensor, nn

_ITERATION = (3.4445, -4.7750, 2.0315)  # quintic Newton-Schulz: drives all singular values towards 1


class Optimizer:
    """Muon for the matrices inside the layers, Adam for the rest.

    Sandwich norms make the loss blind to the scale of most matrices, so that only the direction of a step matters:
    that is what an orthogonalised step gives, and it learns in about half the steps that Adam needs here.
    Matrices of one shape are stepped together, in one batch of small products.
    """

    def __init__(self, network: nn.Module, matrix_rate: float, adam_rate: float, decay: float = 0.02) -> None:
        """Take every parameter of `network`; rates are per step, before the schedule's factor."""
        groups: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        rest: list[nn.Parameter] = []
        for name, parameter in network.named_parameters():
            if parameter.ndim == 2 and "embed_tokens" not in name:
                groups[parameter.shape].append(parameter)
            else:
                rest.append(parameter)
        self._groups = list(groups.values())
        self._momenta = [torch.zeros_like(torch.stack([p.detach() for p in group])) for group in self._groups]
        self._matrix_rate, self._adam_rate, self._decay = matrix_rate, adam_rate, decay
        fused = rest[0].device.type == "cuda"
        self._adam = torch.optim.AdamW(rest, lr=adam_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=fused)

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """Apply the gradients with both rates times `factor` (0..1), then drop them."""
        for group, momentum in zip(self._groups, self._momenta, strict=True):
            gradient = torch.stack([_gradient(parameter) for parameter in group])  # [n, rows, columns]
            momentum.lerp_(gradient, 0.05)
            update = _orthogonalise(gradient.lerp_(momentum, 0.95))
            rows, columns = group[0].shape
            rate = self._matrix_rate * factor * max(1.0, rows / columns) ** 0.5
            weights = [parameter.data for parameter in group]
            torch._foreach_mul_(weights, 1.0 - self._matrix_rate * factor * self._decay)
            torch._foreach_add_(weights, list(update.to(weights[0].dtype).unbind()), alpha=-rate)
            for parameter in group:
                parameter.grad = None
        for settings in self._adam.param_groups:
            settings["lr"] = self._adam_rate * factor
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)


def schedule(done: float, warm: float) -> float:
    """Factor of the rates: a warm-up (`warm` 0..1), a plateau for 35% of the time, then a line down to nearly zero."""
    return min(1.0, warm) * min(1.0, max(0.01, (1.0 - done) / 0.65))


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _orthogonalise(matrices: Tensor) -> Tensor:
    """The nearest orthogonal matrices to `matrices` [n, rows, columns], roughly: singular values near 1."""
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = _ITERATION
    for _ in range(5):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x
