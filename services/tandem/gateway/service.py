"""The gateway's process."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from tandem.core.config import describe
from tandem.gateway.authentication import ApiKeys, AuthenticationInterceptor
from tandem.gateway.config import GatewayConfig
from tandem.gateway.generation_service import GenerationService
from tandem.gateway.model_service import ModelService
from tandem.gateway.prompt import PromptEncoder
from tandem.gateway.rate_limit import GENERATION_SERVICE, RateLimitInterceptor
from tandem.gateway.request_watch import RequestWatch
from tandem.gateway.verifier_link import VerifierLink
from tandem.models.checkpoint import Part, open_checkpoint
from tandem.rpc.channel import open_channel
from tandem.rpc.lifecycle import serve_until_stopped
from tandem.rpc.server import RpcServer, ServerLimits
from tandem.telemetry.metrics import GATEWAY, Metrics
from tandem.telemetry.publishing import publish
from tandem.v1 import generation_service_pb2_grpc, model_service_pb2, model_service_pb2_grpc

logger = logging.getLogger(__name__)

MODEL_SERVICE: str = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name


@dataclass(frozen=True)
class Gateway:
    """A gateway that listens."""

    server: RpcServer
    address: str  # with the port in force
    verifier: VerifierLink
    metrics: Metrics

    async def follow_verifier(self) -> None:
        """Keeps the gateway's health that of its verifier, for as long as it runs."""
        await self.verifier.watch(self.server.set_serving)


async def run(config: GatewayConfig) -> None:
    """Serves until the process is told to stop.

    Raises:
        ConfigError: the gateway cannot start with `config`.
    """
    logger.info("gateway: %s", describe(config))
    async with open_gateway(config) as gateway:
        logger.info("gateway ready on %s", gateway.address)
        await serve_until_stopped(
            gateway.server,
            config.drain_seconds,
            [gateway.follow_verifier(), publish(gateway.metrics, config.metrics_listen)],
        )


@asynccontextmanager
async def open_gateway(config: GatewayConfig) -> AsyncIterator[Gateway]:
    """A gateway that listens, and says NOT_SERVING until `follow_verifier` finds a verifier that serves.

    Raises:
        ConfigError: the gateway cannot start with `config`.
    """
    interceptors = _interceptors(config)
    checkpoint = await asyncio.to_thread(open_checkpoint, config.tokenizer, Part.TEXT)
    encoder = await asyncio.to_thread(PromptEncoder.load, checkpoint.folder, config.max_prompt_characters)
    async with open_channel(config.verifier) as channel:
        metrics = Metrics(GATEWAY)
        verifier = VerifierLink(channel, config.model_name)
        server = RpcServer(interceptors, ServerLimits(config.max_message_bytes, config.max_concurrent_streams), metrics)
        server.add(
            generation_service_pb2_grpc.add_GenerationServiceServicer_to_server,
            GenerationService(verifier, encoder, config.max_output_tokens, RequestWatch(metrics, config.trace_content)),
            GENERATION_SERVICE,
        )
        server.add(model_service_pb2_grpc.add_ModelServiceServicer_to_server, ModelService(verifier), MODEL_SERVICE)
        try:
            yield Gateway(server, await server.start(config.listen), verifier, metrics)
        finally:
            await server.stop(0)


def _interceptors(config: GatewayConfig) -> list[grpc.aio.ServerInterceptor]:
    """Who is it, and has it had its share: in this order, so that nobody spends another's share."""
    interceptors: list[grpc.aio.ServerInterceptor] = []
    if config.api_keys_file:
        interceptors.append(AuthenticationInterceptor(ApiKeys.load(Path(config.api_keys_file))))
    if config.requests_per_minute > 0:
        interceptors.append(RateLimitInterceptor(config.requests_per_minute))
    return interceptors
