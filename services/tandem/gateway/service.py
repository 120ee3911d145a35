"""The gateway's process."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tandem.core.config import describe
from tandem.gateway.answers import Answers
from tandem.gateway.authentication import ApiKeysFile, Authentication, AuthenticationInterceptor
from tandem.gateway.config import GatewayConfig
from tandem.gateway.generation_service import GenerationService
from tandem.gateway.http.app import make_app
from tandem.gateway.http.door import open_door
from tandem.gateway.http.guard import Guard
from tandem.gateway.model_service import ModelService
from tandem.gateway.prompt import PromptEncoder
from tandem.gateway.rate_limit import GENERATION_SERVICE, Allowances, CallerLimits, RateLimitInterceptor
from tandem.gateway.request_watch import RequestWatch
from tandem.gateway.verifier_addresses import VerifierAddresses
from tandem.gateway.verifier_link import VerifierLink
from tandem.gateway.verifier_pool import VerifierPool
from tandem.models.checkpoint import Part, open_checkpoint
from tandem.rpc.addresses import is_local
from tandem.rpc.channel import open_channel
from tandem.rpc.lifecycle import serve_until_stopped
from tandem.rpc.server import RpcServer, ServerLimits
from tandem.rpc.tls import client_credentials
from tandem.telemetry.metric import GATEWAY
from tandem.telemetry.metrics import Metrics
from tandem.telemetry.publishing import publish
from tandem.v1 import generation_service_pb2_grpc, model_service_pb2, model_service_pb2_grpc

logger = logging.getLogger(__name__)

MODEL_SERVICE: str = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name


@dataclass(frozen=True)
class Gateway:
    """A gateway that listens."""

    server: RpcServer
    address: str  # with the port in force
    http_address: str  # likewise; empty: no HTTP
    verifiers: VerifierPool
    metrics: Metrics

    async def follow_verifiers(self) -> None:
        """Keeps the gateway's health that of its verifiers: good while one of them serves. For as long as it runs."""
        await self.verifiers.follow(self.server.set_serving)


async def run(config: GatewayConfig) -> None:
    """Serves until the process is told to stop.

    Raises:
        ConfigError: the gateway cannot start with `config`.
    """
    logger.info("gateway: %s", describe(config))
    async with open_gateway(config) as gateway:
        logger.info("gateway ready on %s", gateway.address)
        if gateway.http_address:
            logger.info("HTTP on %s://%s", "https" if config.tls else "http", gateway.http_address)
        background = [gateway.follow_verifiers(), publish(gateway.metrics, config.metrics_listen)]
        await serve_until_stopped(gateway.server, config.drain_seconds, background)


@asynccontextmanager
async def open_gateway(config: GatewayConfig) -> AsyncIterator[Gateway]:
    """A gateway that listens, and says NOT_SERVING until `follow_verifiers` finds a verifier that serves.

    Raises:
        ConfigError: the gateway cannot start with `config`.
    """
    keys_file = ApiKeysFile(Path(config.api_keys_file)) if config.api_keys_file else None
    for listen in filter(None, (config.listen, config.http_listen)):
        if keys_file and config.tls is None and not is_local(listen):
            logger.warning("API keys travel in plain text to %s unless a proxy adds TLS", listen)
    checkpoint = await asyncio.to_thread(open_checkpoint, config.tokenizer, Part.TEXT)
    encoder = await asyncio.to_thread(PromptEncoder.load, checkpoint.folder, config.max_prompt_characters)
    if config.verifier_tls:
        client_credentials(config.verifier_tls)  # unusable files end the start, not the first call
    metrics = Metrics(GATEWAY)
    authentication = Authentication(keys_file)
    allowances = Allowances(CallerLimits(config.requests_per_minute, config.tokens_per_minute, config.streams_per_key))
    verifiers = VerifierPool(
        VerifierAddresses(config.verifier),
        lambda address: VerifierLink(address, open_channel(address, tls=config.verifier_tls), config.model_name),
        config.verifier_refresh_seconds,
        metrics,
    )
    server = RpcServer(
        # Who is it, and has it had its share: in this order, so that nobody spends another's share.
        [AuthenticationInterceptor(authentication), RateLimitInterceptor(allowances)],
        ServerLimits(config.max_message_bytes, config.max_concurrent_streams),
        config.tls,
        config.reflection,
        metrics,
    )
    answers = Answers(
        verifiers,
        encoder,
        config.max_output_tokens,
        config.resume_seconds,
        metrics,
        RequestWatch(metrics, config.trace_content),
    )
    server.add(
        generation_service_pb2_grpc.add_GenerationServiceServicer_to_server,
        GenerationService(answers),
        GENERATION_SERVICE,
    )
    server.add(model_service_pb2_grpc.add_ModelServiceServicer_to_server, ModelService(verifiers), MODEL_SERVICE)
    guard = Guard(authentication, allowances, server.drain, metrics)
    app = make_app(
        answers, guard, lambda: server.is_serving, config.max_message_bytes, has_playground=config.playground
    )
    async with _followed(keys_file):
        try:
            address = await server.start(config.listen, config.health_listen)
            async with open_door(app, guard, config.http_listen, config.tls) as http_address:
                yield Gateway(server, address, http_address, verifiers, metrics)
        finally:
            await server.stop(0)
            await verifiers.close()


@asynccontextmanager
async def _followed(keys_file: ApiKeysFile | None) -> AsyncIterator[None]:
    """Takes up changes of the file while inside."""
    following = asyncio.create_task(keys_file.follow()) if keys_file else None
    try:
        yield
    finally:
        if following:
            following.cancel()
