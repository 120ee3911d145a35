"""Rotary positions for both layer types at once."""

from collections.abc import Mapping

import torch

from tandem.models.gemma4.attention_config import AttentionConfig


class RotaryEmbedding:
    """Cosines and sines of a step's positions, computed once and used by all layers.

    Pair j of a head is its entries (j, j + head_dim / 2); with proportional positions the pairs from `num_rope_angles`
    on have frequency 0, which leaves them as they are. Turning a head is then x * cos + swap_halves(x) * sin, with the
    sines of the first half negated. Negated frequencies give just that, since cos is even and sin is odd.
    """

    def __init__(self, attention: Mapping[str, AttentionConfig], dtype: torch.dtype, device: torch.device) -> None:
        """Frequencies of each layer type, side by side."""
        self._names = tuple(attention)
        self._sizes = [config.head_dim for config in attention.values()]
        self._dtype = dtype
        self._frequencies = torch.cat([_signed_frequencies(config) for config in attention.values()]).to(device)

    def __call__(
        self,
        positions: torch.Tensor,  # [T] int64
    ) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:  # layer type -> cos and sin, [T, 1, head_dim] each
        """What `LayerInputs` wants of each layer type."""
        angles = positions[:, None, None] * self._frequencies
        cosines = torch.split(angles.cos().to(self._dtype), self._sizes, -1)
        sines = torch.split(angles.sin().to(self._dtype), self._sizes, -1)
        return dict(zip(self._names, zip(cosines, sines, strict=True), strict=True))


def _signed_frequencies(config: AttentionConfig) -> torch.Tensor:  # [head_dim] float32
    frequencies = torch.zeros(config.head_dim // 2)
    exponents = torch.arange(0, 2 * config.num_rope_angles, 2).float() / config.head_dim
    frequencies[: config.num_rope_angles] = 1.0 / config.rope_theta**exponents
    return torch.cat((-frequencies, frequencies))
