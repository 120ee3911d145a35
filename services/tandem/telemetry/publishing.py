"""Lets the numbers of a process be seen, in both ways there are, while it runs."""

import asyncio
import logging
from typing import NoReturn

from tandem.telemetry.metrics import Metrics
from tandem.telemetry.otlp import exported_metrics
from tandem.telemetry.prometheus import scrape_port

logger = logging.getLogger(__name__)


async def publish(metrics: Metrics, listen: str) -> NoReturn:
    """Serves and sends `metrics` until it is cancelled.

    Args:
        metrics: of this process.
        listen: `host:port` for Prometheus; empty: none.

    Raises:
        ConfigError: nothing can listen there.
    """
    with exported_metrics(metrics):
        if listen:
            async with scrape_port(metrics, listen) as address:
                logger.info("metrics on http://%s/metrics", address)
                await asyncio.Event().wait()
        await asyncio.Event().wait()
    raise AssertionError("it ends by being cancelled")
