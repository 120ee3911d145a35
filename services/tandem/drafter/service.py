"""The drafter's process."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tandem.core.config import describe
from tandem.drafter.config import DrafterConfig
from tandem.drafter.device import Device
from tandem.drafter.drafter_service import DrafterService
from tandem.drafter.v1 import drafter_service_pb2, drafter_service_pb2_grpc
from tandem.rpc.lifecycle import serve_until_stopped
from tandem.rpc.server import RpcServer, ServerLimits

logger = logging.getLogger(__name__)

DRAFTER_SERVICE: str = drafter_service_pb2.DESCRIPTOR.services_by_name["DrafterService"].full_name
MAX_MESSAGE_BYTES = 1 << 20


@dataclass(frozen=True)
class Drafter:
    """A drafter that listens."""

    server: RpcServer
    address: str


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
        service = DrafterService(device, await device.load())
        server = RpcServer(limits=ServerLimits(max_message_bytes=MAX_MESSAGE_BYTES))
        server.add(drafter_service_pb2_grpc.add_DrafterServiceServicer_to_server, service, DRAFTER_SERVICE)
        server.when_stopping(service.stop)
        try:
            address = await server.start(config.listen)
            server.set_serving(True)
            yield Drafter(server, address)
        finally:
            await server.stop(0)
    finally:
        device.close()
