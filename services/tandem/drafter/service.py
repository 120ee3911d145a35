"""The drafter's process."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tandem.core.config import describe
from tandem.drafter.config import DrafterConfig
from tandem.drafter.device import Device
from tandem.drafter.memory_drafting import MemoryDrafting
from tandem.drafter.server import Drafter, open_server
from tandem.rpc.lifecycle import serve_until_stopped

logger = logging.getLogger(__name__)


async def run(config: DrafterConfig) -> None:
    """Serves until the process is told to stop.

    Raises:
        ConfigError: the drafter cannot start with `config`.
    """
    logger.info("drafter: %s", describe(config))
    async with open_drafter(config) as drafter:
        logger.info("drafter ready on %s", drafter.address)
        await serve_until_stopped(drafter.server, config.drain_seconds)


@asynccontextmanager
async def open_drafter(config: DrafterConfig) -> AsyncIterator[Drafter]:
    """A drafter that is loaded, warm and listens.

    Raises:
        ConfigError: the drafter cannot start with `config`.
    """
    device = Device(config)
    try:
        async with open_server(config.listen, MemoryDrafting(device), await device.load()) as drafter:
            yield drafter
    finally:
        device.close()
