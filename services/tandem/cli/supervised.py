"""A service's process that ends with the process that started it, however that one ended.

`python -m tandem.cli.supervised COMMAND ...` runs `tandem COMMAND ...` and watches stdin: its other end is held by the
parent, and closes when the parent is gone, be it by `kill -9`.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

from tandem.cli.main import main

STDIN = 0
FIRST_GRACE_SECONDS = 1.0  # for running requests
SECOND_GRACE_SECONDS = 5.0  # to free what is held


def run_supervised(main: Callable[[], int]) -> NoReturn:
    """Runs a service's `main`, and ends the process with its parent or with what `main` returns."""
    threading.Thread(target=_end_with_parent, name="parent watch", daemon=True).start()
    sys.exit(main())


def _end_with_parent() -> None:
    while os.read(STDIN, 1024):
        pass
    for grace_seconds in (FIRST_GRACE_SECONDS, SECOND_GRACE_SECONDS):
        # A service drains on the first and hurries on the second.
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace_seconds)
    os._exit(1)


if __name__ == "__main__":
    run_supervised(main)
