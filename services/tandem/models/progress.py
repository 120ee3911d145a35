"""How far a load has come, for those who wait for it."""

import logging
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

PERIOD_SECONDS = 2.0

Progress = Callable[[int, int], None]  # so much is done, of how much


def log_progress(what: str) -> Progress:
    """Logs now and then how much of `what` is read; a short load says nothing."""
    told = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told >= PERIOD_SECONDS:
            told = time.monotonic()
            logger.info("%s: %d%% read", what, 100 * done // total)

    return progress
