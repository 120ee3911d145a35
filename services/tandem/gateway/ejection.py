"""Keeps requests away from a verifier that breaks its calls."""

import time
from collections.abc import Callable

FIRST_SECONDS = 0.5
MAX_SECONDS = 30.0


class Ejection:
    """Out for a while after a call that broke, twice as long when the next one breaks as well."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts in; `clock` counts seconds."""
        self._clock = clock
        self._seconds = FIRST_SECONDS
        self._ends_at = clock()

    @property
    def is_in_force(self) -> bool:
        """Whether requests had better go elsewhere."""
        return self._clock() < self._ends_at

    def fail(self) -> None:
        """A call broke. Those that break with it count as the same failure."""
        if not self.is_in_force:
            self._ends_at = self._clock() + self._seconds
            self._seconds = min(2 * self._seconds, MAX_SECONDS)

    def succeed(self) -> None:
        """A call was answered."""
        self._seconds = FIRST_SECONDS
        self._ends_at = self._clock()
