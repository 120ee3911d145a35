"""A figure beside what is wanted of it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """One figure."""

    name: str
    value: float | None  # None: not measured
    unit: str
    bound: float | None = None  # None: shown for its own sake
    is_upper_bound: bool = False

    @property
    def is_reached(self) -> bool | None:
        """None where nothing is wanted, or nothing was measured."""
        if self.value is None or self.bound is None:
            return None
        return self.value <= self.bound if self.is_upper_bound else self.value >= self.bound
