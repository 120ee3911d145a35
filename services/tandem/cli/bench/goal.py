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

    def line(self, name_width: int) -> str:
        """What was measured, what is wanted, and whether that is reached."""
        value = "-" if self.value is None else f"{self.value:.2f}{self.unit}"
        return f"{self.name:<{name_width}}{value:>10}   {self._wanted}".rstrip()

    @property
    def _wanted(self) -> str:
        if self.bound is None:
            return ""
        outcome = {True: "reached", False: "not reached", None: "not measured"}[self.is_reached]
        return f"{'<=' if self.is_upper_bound else '>='} {self.bound:g}{self.unit} {outcome}"
