"""Logging as every process does it: one line a record, to stderr.

    2026-01-31T12:00:00.123Z INFO    gateway  [3f1c] refused: QUEUE_FULL

No log line ever holds a prompt or an answer: who logs a request logs its id and its sizes.
"""

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from tandem.core.config import option

LEVELS = ("debug", "info", "warning", "error")
NO_REQUEST = "-"


@dataclass(frozen=True)
class LogConfig:
    """Settings of the log, the same for every process."""

    log_level: str = option("info", help="least level that is logged", choices=LEVELS)


class LineFormatter(logging.Formatter):
    """Time in UTC, level, service, request id where there is one, message; a traceback stays on the line."""

    def __init__(self, service: str, request_id: Callable[[], str]) -> None:
        """Formats the records of `service`; `request_id` gives that of the request at work, or `-`."""
        super().__init__()
        self._service = service
        self._request_id = request_id

    def format(self, record: logging.LogRecord) -> str:
        """One record as one line, whatever its message holds."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        request_id = self._request_id()
        request = "" if request_id == NO_REQUEST else f"[{request_id}] "
        message = record.getMessage()
        if record.exc_info:
            message = f"{message}\n{self.formatException(record.exc_info)}"
        # A line break in somebody's text must not pass for another record.
        message = message.replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n")
        return f"{moment}.{int(record.msecs):03d}Z {record.levelname:<7} {self._service:<8} {request}{message}"


def configure(
    service: str, config: LogConfig, request_id: Callable[[], str] = lambda: NO_REQUEST, stream: TextIO | None = None
) -> None:
    """Sets up the log of this process, in place of what was set up before.

    Args:
        service: named in each line.
        config: what to log.
        request_id: id of the request that the calling task serves; `-` outside of any.
        stream: where to; none: stderr.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LineFormatter(service, request_id))
    # Libraries speak up when something is wrong, and are silent otherwise.
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("tandem").setLevel(config.log_level.upper())
