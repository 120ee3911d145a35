"""Random weights in place of a checkpoint's, made on the device: for measurements, where no checkpoint is at hand.

They are drawn so that rows, keys and values look like those of a trained network: projections keep the size of what
they map, norms are near one, and attention scores are about one wide, since a softmax with one winner would read one
value instead of all. Logits are about one wide too.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from pathlib import Path

import torch

from tandem.models.gemma4.parameters import Destination

SEED = 0
DRAWN_AS = torch.bfloat16  # whatever they are kept as: the numbers are the same for all formats
REVISION = "random"
PIECE_NUMBERS = 1 << 26  # drawn at a time: what is drawn beside the weights stays small
_NORM_WIDTH = 0.1
_QUERY_OR_KEY_NORM = re.compile(r"self_attn\.[qk]_norm\.weight$")


class RandomTensors:
    """As many random tensors as a network wants."""

    def __init__(self, wanted: Mapping[str, Destination], device: torch.device) -> None:
        """Draws nothing yet; numbers will be drawn on `device`."""
        self._wanted = wanted
        self._device = device

    def read(
        self, names: Iterable[str], rows: Mapping[str, range] | None = None
    ) -> Iterator[tuple[str, int, torch.Tensor]]:
        """Yields each tensor in pieces, as `Tensors` says. The same names in the same order get the same numbers."""
        generator = torch.Generator(self._device).manual_seed(SEED)
        for name in names:
            shape = self._wanted[name].shape
            if not self._wanted[name].views[0].is_floating_point():  # an order of tokens
                yield name, 0, torch.arange(prod(shape), device=self._device).view(shape)
                continue
            mean, width = _distribution(name, shape)
            num_rows = max(1, PIECE_NUMBERS // prod(shape[1:])) if len(shape) > 1 else shape[0]
            kept = (rows or {}).get(name, range(shape[0]))
            for start in range(0, shape[0], num_rows):
                piece_shape = (min(num_rows, shape[0] - start), *shape[1:])
                piece = torch.empty(piece_shape, dtype=DRAWN_AS, device=self._device)
                piece.normal_(mean, width, generator=generator)
                first, stop = max(start, kept.start), min(start + len(piece), kept.stop)
                if first < stop:
                    yield name, first, piece[first - start : stop - start]


class RandomWeights:
    """A `WeightSource` that reads no file but the folder's config.json."""

    def __init__(self, device: torch.device | str) -> None:
        """`device` is where numbers are drawn: that of the network, or it takes long."""
        self._device = torch.device(device)

    def open(self, folder: Path, wanted: Mapping[str, Destination], unused: re.Pattern[str]) -> RandomTensors:
        """See `WeightSource`."""
        return RandomTensors(wanted, self._device)

    def revision(self, folder: Path) -> str:
        """See `WeightSource`."""
        return REVISION


def _distribution(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Mean and standard deviation of a tensor's numbers."""
    if len(shape) > 1:  # [..., out_features, in_features]
        return 0.0, shape[-1] ** -0.5
    if shape == (1,):  # a layer's scale: sixty random ones would multiply up
        return 1.0, 0.0
    # Queries and keys of unit length a number would give scores as wide as the root of the head's size.
    size = shape[0] ** -0.25 if _QUERY_OR_KEY_NORM.search(name) else 1.0
    return size, size * _NORM_WIDTH
