"""The lookup drafter's process: no weights, no shared memory, no torch."""

import logging
from contextlib import AbstractAsyncContextManager

from tandem.core.config import describe
from tandem.drafter.lookup_config import LookupConfig
from tandem.drafter.lookup_drafting import LookupDrafting
from tandem.drafter.server import Drafter, open_server
from tandem.engine.draft_source import DrafterInfo
from tandem.rpc.lifecycle import serve_until_stopped
from tandem.telemetry.publishing import publish

logger = logging.getLogger(__name__)

NAME = "lookup"


async def run(config: LookupConfig) -> None:
    """Serves until the process is told to stop.

    Raises:
        ConfigError: the drafter cannot start with `config`.
    """
    logger.info("lookup drafter: %s", describe(config))
    async with open_lookup_drafter(config) as drafter:
        logger.info("lookup drafter ready on %s", drafter.address)
        background = [publish(drafter.metrics, config.metrics_listen)]
        await serve_until_stopped(drafter.server, config.drain_seconds, background)


def open_lookup_drafter(config: LookupConfig) -> AbstractAsyncContextManager[Drafter]:
    """A drafter that listens, as an async context.

    Raises:
        ConfigError: the drafter cannot start with `config`.
    """
    drafting = LookupDrafting(config.num_speculative_tokens, config.memory_tokens)
    return open_server(config.listen, drafting, DrafterInfo(NAME, config.num_speculative_tokens, revision=""))
