"""A drafter's server: listens on its socket, and serves one `Drafting`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tandem.drafter.drafter_service import DrafterService, Drafting
from tandem.drafter.v1 import drafter_service_pb2, drafter_service_pb2_grpc
from tandem.engine.draft_source import DrafterInfo
from tandem.rpc.server import RpcServer, ServerLimits
from tandem.telemetry.metric import DRAFTER
from tandem.telemetry.metrics import Metrics

DRAFTER_SERVICE: str = drafter_service_pb2.DESCRIPTOR.services_by_name["DrafterService"].full_name
MAX_MESSAGE_BYTES = 1 << 20


@dataclass(frozen=True)
class Drafter:
    """A drafter that listens."""

    server: RpcServer
    address: str
    metrics: Metrics


@asynccontextmanager
async def open_server(
    listen: str, drafting: Drafting, info: DrafterInfo, health_listen: str = ""
) -> AsyncIterator[Drafter]:
    """A server that says SERVING.

    Args:
        listen: `unix:/path`.
        drafting: who drafts; ready to be attached.
        info: what verifiers are told of it.
        health_listen: `host:port` that tells its health alone; empty: none.

    Raises:
        ConfigError: nothing can listen there.
    """
    metrics = Metrics(DRAFTER)
    service = DrafterService(drafting, info, metrics)
    server = RpcServer(limits=ServerLimits(max_message_bytes=MAX_MESSAGE_BYTES), metrics=metrics)
    server.add(drafter_service_pb2_grpc.add_DrafterServiceServicer_to_server, service, DRAFTER_SERVICE)
    server.when_stopping(service.stop)
    try:
        address = await server.start(listen, health_listen)
        server.set_serving(True)
        yield Drafter(server, address, metrics)
    finally:
        await server.stop(0)
