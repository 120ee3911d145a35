"""The life of one service's process, as its command sees it."""

import logging
from collections.abc import Coroutine
from typing import Any

from tandem.core.errors import TandemError
from tandem.telemetry import logs
from tandem.telemetry.logs import LogConfig
from tandem.telemetry.otlp import exported_traces

logger = logging.getLogger(__name__)


def run_service(name: str, log_config: LogConfig, serving: Coroutine[Any, Any, None]) -> int:
    """Runs a service's coroutine to its end; returns the exit code.

    Raises:
        TandemError: the service cannot run, for a reason that a user can do something about.
    """
    from tandem.rpc.lifecycle import run
    from tandem.rpc.request_id import current_request_id

    logs.configure(name, log_config, current_request_id)
    try:
        with exported_traces(name):
            run(serving)
    except TandemError:
        raise
    except Exception:
        # Where it happened is for the log; the command would show the message alone.
        logger.exception("%s ended by a defect", name)
        return 1
    return 0
