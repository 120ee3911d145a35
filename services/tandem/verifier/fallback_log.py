"""Rounds without drafts, as lines in the log: few, however many rounds there are."""

import logging
import time
from collections import Counter

from tandem.engine.draft_source import Fallback

logger = logging.getLogger(__name__)

LOG_SECONDS = 10.0


class FallbackLog:
    """Sums up; used by one thread."""

    def __init__(self) -> None:
        """Nothing has been missed."""
        self._counts: Counter[Fallback] = Counter()
        self._told_at = -LOG_SECONDS

    def add(self, fallback: Fallback) -> None:
        """One more round."""
        self._counts[fallback] += 1
        now = time.monotonic()
        if now - self._told_at >= LOG_SECONDS:
            kinds = ", ".join(f"{count} {kind.value}" for kind, count in self._counts.items())
            logger.warning("rounds without drafts since the last such line: %s", kinds)
            self._counts.clear()
            self._told_at = now
