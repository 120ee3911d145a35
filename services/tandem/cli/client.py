"""A gateway as the client commands call it."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tandem.cli.client_config import ClientConfig
from tandem.cli.figures import Figures
from tandem.core.errors import ConfigError, TandemError
from tandem.rpc.channel import open_channel
from tandem.rpc.errors import STATUS_DETAILS_KEY
from tandem.v1 import (
    generation_service_pb2,
    generation_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    types_pb2,
)


class RequestFailed(TandemError):
    """The gateway refused, failed, or could not be reached; the message begins with the status code's name."""

    def __init__(self, error: grpc.aio.AioRpcError, server: str) -> None:
        """Says what `error` means to a user of `server`."""
        trailers = error.trailing_metadata()
        is_answer = trailers is not None and STATUS_DETAILS_KEY in trailers
        if error.code() is grpc.StatusCode.UNAVAILABLE and not is_answer:
            what = f"no gateway answers at {server}; 'tandem up' starts one"
        else:
            what = error.details() or "no more is known"
        super().__init__(f"{error.code().name}: {what}")
        self.code: grpc.StatusCode = error.code()


class Client:
    """Calls of one gateway."""

    def __init__(self, channel: grpc.aio.Channel, config: ClientConfig) -> None:
        """Calls over `channel`, with the API key that `config` names.

        Raises:
            ConfigError: the key cannot be read.
        """
        self._server = config.server
        self._metadata = _credentials(config.api_key_file)
        self._generation = generation_service_pb2_grpc.GenerationServiceStub(channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(channel)
        self._health = health_pb2_grpc.HealthStub(channel)

    async def generate(
        self,
        spec: types_pb2.GenerationSpec,
        on_delta: Callable[[types_pb2.Delta], None],
        timeout_seconds: float | None = None,
    ) -> Figures:
        """Streams an answer; returns its figures once it is complete. Being cancelled cancels the work.

        Raises:
            RequestFailed: the answer ended early, or never began.
        """
        started_at = time.perf_counter()
        first_at = None
        request = generation_service_pb2.StreamGenerateRequest(spec=spec)
        stream = self._generation.StreamGenerate(request, timeout=timeout_seconds, metadata=self._metadata)
        finished = types_pb2.Finished()
        try:
            async for response in stream:
                match response.WhichOneof("event"):
                    case "delta":
                        first_at = first_at or time.perf_counter()
                        on_delta(response.delta)
                    case "finished":
                        finished = response.finished
        except grpc.aio.AioRpcError as error:
            raise RequestFailed(error, self._server) from None
        finally:
            stream.cancel()
        ended_at = time.perf_counter()
        return Figures(
            num_tokens=finished.usage.num_output_tokens,
            num_rounds=finished.speculation.num_rounds,
            num_draft_tokens=finished.speculation.num_draft_tokens,
            num_accepted_tokens=finished.speculation.num_accepted_tokens,
            seconds=ended_at - started_at,
            first_token_seconds=(first_at or ended_at) - started_at,
        )

    async def model(self) -> model_service_pb2.Model:
        """The model served.

        Raises:
            RequestFailed: nobody says.
        """
        request = model_service_pb2.GetModelRequest()
        try:
            return (await self._models.GetModel(request, metadata=self._metadata, timeout=5)).model
        except grpc.aio.AioRpcError as error:
            raise RequestFailed(error, self._server) from None

    async def is_serving(self) -> bool:
        """Whether the gateway says SERVING.

        Raises:
            RequestFailed: it says nothing.
        """
        try:
            response = await self._health.Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.aio.AioRpcError as error:
            raise RequestFailed(error, self._server) from None
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)


@asynccontextmanager
async def open_client(config: ClientConfig) -> AsyncIterator[Client]:
    """A client of the gateway that `config` names; connects when first used.

    Raises:
        ConfigError: the API key or a file of TLS cannot be read.
    """
    async with open_channel(config.server, tls=config.tls) as channel:
        yield Client(channel, config)


def _credentials(api_key_file: str | None) -> tuple[tuple[str, str], ...]:
    if api_key_file is None:
        return ()
    try:
        lines = [line.strip() for line in Path(api_key_file).read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the API key from {api_key_file}: {error}") from None
    key = next((line for line in lines if line and not line.startswith("#")), None)
    if key is None:
        raise ConfigError(f"{api_key_file} holds no API key")
    return (("authorization", f"Bearer {key}"),)
