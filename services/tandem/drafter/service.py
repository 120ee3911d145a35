"""The drafter's process."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tandem.core.config import describe
from tandem.drafter.config import DrafterConfig
from tandem.drafter.device import Device
from tandem.drafter.memory_drafting import MemoryDrafting
from tandem.drafter.server import Drafter, open_server
from tandem.models.gemma4.weight_source import WeightSource
from tandem.models.gemma4.weights import CHECKPOINT
from tandem.rpc.lifecycle import serve_until_stopped
from tandem.telemetry.publishing import publish

logger = logging.getLogger(__name__)


async def run(config: DrafterConfig, weights: WeightSource = CHECKPOINT) -> None:
    """Serves until the process is told to stop.

    Args:
        config: the settings.
        weights: where the drafter's come from. No setting reaches this: only a benchmark has others.

    Raises:
        ConfigError: the drafter cannot start with `config`.
    """
    logger.info("drafter: %s", describe(config))
    async with open_drafter(config, weights) as drafter:
        logger.info("drafter ready on %s", drafter.address)
        background = [publish(drafter.metrics, config.metrics_listen)]
        await serve_until_stopped(drafter.server, config.drain_seconds, background)


@asynccontextmanager
async def open_drafter(config: DrafterConfig, weights: WeightSource = CHECKPOINT) -> AsyncIterator[Drafter]:
    """A drafter that is loaded, warm and listens.

    Raises:
        ConfigError: the drafter cannot start with `config`.
    """
    device = Device(config, weights)
    try:
        info = await device.load()
        async with open_server(config.listen, MemoryDrafting(device), info, config.health_listen) as drafter:
            yield drafter
    finally:
        device.close()
