"""What keys and values are divided by where they are stored in 8 bits.

Scales are powers of two: dividing and multiplying by them rounds nothing. One a layer for keys and one for values are
enough, since E4M3 is a floating-point format: a scale has to prevent overflow, not to spread numbers over the range.
"""

from dataclasses import dataclass
from math import frexp

import torch

_MARGIN = 1.02  # for numbers that were rounded up on their way


@dataclass(frozen=True)
class KvScales:
    """Of one layer: stored keys times 2^key_exponent are the keys; values likewise."""

    key_exponent: int = 0
    value_exponent: int = 0

    @property
    def key(self) -> float:
        """What a stored key is multiplied by."""
        return 2.0**self.key_exponent

    @property
    def value(self) -> float:
        """What a stored value is multiplied by."""
        return 2.0**self.value_exponent


UNSCALED = KvScales()


def scales_for(largest_key: float, largest_value: float, dtype: torch.dtype) -> KvScales:
    """The least scales under which numbers up to these fit into a storage format; formats above 8 bits need none."""
    if dtype.itemsize > 1:
        return UNSCALED
    room = torch.finfo(dtype).max / _MARGIN
    return KvScales(_exponent(largest_key / room), _exponent(largest_value / room))


def _exponent(ratio: float) -> int:
    """The least e with 2^e >= ratio."""
    mantissa, exponent = frexp(ratio)
    return exponent - 1 if mantissa == 0.5 else exponent
