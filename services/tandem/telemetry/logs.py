"""Logging as every process does it: one line a record, to stderr.

    2026-01-31T12:00:00.123Z INFO    gateway  [3f1c] refused: QUEUE_FULL

or, with `--log-format json`, one object a record, with the ids of request, trace and span where there are any.
No log line ever holds a prompt or an answer: who logs a request logs its id and its sizes.
"""

import json
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from tandem.core.config import option
from tandem.telemetry.tracing import current_trace

TEXT, JSON = "text", "json"
LEVELS = ("debug", "info", "warning", "error")
NO_REQUEST = "-"


@dataclass(frozen=True)
class LogConfig:
    """Settings of the log, the same for every process."""

    log_level: str = option("info", help="least level that is logged", choices=LEVELS)
    log_format: str = option(TEXT, help="a line for people, or an object for machines", choices=(TEXT, JSON))


class _Formatter(logging.Formatter):
    """What both formats know of a record."""

    def __init__(self, service: str, request_id: Callable[[], str]) -> None:
        """Formats the records of `service`; `request_id` gives that of the request at work, or `-`."""
        super().__init__()
        self._service = service
        self._request_id = request_id

    def _moment(self, record: logging.LogRecord) -> str:
        """When it was made, in UTC."""
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"

    def _request(self) -> str:
        """The id of the request at work; empty outside of any."""
        request_id = self._request_id()
        return "" if request_id == NO_REQUEST else request_id


class LineFormatter(_Formatter):
    """Time in UTC, level, service, request id where there is one, message; a traceback stays on the line."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as one line, whatever its message holds."""
        request_id = self._request()
        request = f"[{request_id}] " if request_id else ""
        message = record.getMessage()
        if record.exc_info:
            message = f"{message}\n{self.formatException(record.exc_info)}"
        # A line break in somebody's text must not pass for another record.
        message = message.replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n")
        return f"{self._moment(record)} {record.levelname:<7} {self._service:<8} {request}{message}"


class JsonFormatter(_Formatter):
    """The same as an object a line, with the trace that the record was made in."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as one line; fields without a value are left out."""
        trace_id, span_id = current_trace()
        fields = {
            "time": self._moment(record),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": self._request(),
            "trace_id": trace_id,
            "span_id": span_id,
            "exception": self.formatException(record.exc_info) if record.exc_info else "",
        }
        return json.dumps({name: text for name, text in fields.items() if text})


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
    formatter = JsonFormatter if config.log_format == JSON else LineFormatter
    handler.setFormatter(formatter(service, request_id))
    # Libraries speak up when something is wrong, and are silent otherwise.
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("tandem").setLevel(config.log_level.upper())
