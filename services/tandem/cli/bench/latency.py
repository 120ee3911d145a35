"""The wait for the first token, through the gateway and without it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class FirstToken:
    """Waits in milliseconds, in the order in which they were measured: one of each, again and again."""

    verifier_ms: tuple[float, ...]
    gateway_ms: tuple[float, ...]

    @property
    def gateway_adds_ms(self) -> float:
        """The difference of both medians."""
        return median(self.gateway_ms) - median(self.verifier_ms)


def percentile(values: Sequence[float], percent: float) -> float:
    """The least value that `percent` of all are not above (nearest rank)."""
    assert values and 0 < percent <= 100
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]
