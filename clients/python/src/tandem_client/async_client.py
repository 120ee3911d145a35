"""The client of programs with asyncio."""

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self, Unpack

import grpc

from tandem_client._proto.tandem.v1 import (
    generation_service_pb2,
    generation_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
)
from tandem_client.connection import DEFAULT_ADDRESS, DEFAULT_MAX_ATTEMPTS, Connection
from tandem_client.errors import Cancelled, translated
from tandem_client.model import Model
from tandem_client.options import Options, Prompt, make_spec
from tandem_client.progress import Progress
from tandem_client.results import Delta, Generation
from tandem_client.tls import Tls

Call = grpc.aio.UnaryStreamCall[
    generation_service_pb2.StreamGenerateRequest, generation_service_pb2.StreamGenerateResponse
]


class AsyncStream(Progress, AsyncIterator[Delta]):
    """A text as it is made: iterate over its deltas. Leaving its `async with` block cancels what is left of it."""

    def __init__(self, call: Call) -> None:
        """Reads from `call`."""
        super().__init__()
        self._call = call
        self._responses = aiter(call)
        self._is_cancelled = False

    async def __anext__(self) -> Delta:
        """Waits for more text. A task that is cancelled meanwhile cancels the stream.

        Raises:
            TandemError: the text was refused, broke off or was cancelled.
        """
        try:
            with translated():
                async for response in self._responses:
                    if delta := self._take(response):
                        return delta
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._is_cancelled and not (task and task.cancelling()):
                raise Cancelled(grpc.StatusCode.CANCELLED, "the stream was cancelled by its reader") from None
            raise
        raise StopAsyncIteration

    def cancel(self) -> None:
        """Ends the work at the server; whoever waits for text gets `Cancelled`."""
        self._is_cancelled = True
        self._call.cancel()

    async def __aenter__(self) -> Self:
        """Itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Cancels what is left."""
        self.cancel()


class AsyncClient:
    """Calls of one server, over one connection that is made when first used and again whenever it breaks.

    Belongs to the event loop in which it is made.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        api_key: str | None = None,
        tls: Tls | None = None,
        max_attempts: int = DEFAULT_MAX_ATTEMPTS,
    ) -> None:
        """Connects to nobody yet. For the arguments and errors see `Client`."""
        self._connection = Connection(address, api_key, tls, max_attempts)
        credentials, options = self._connection.credentials(), self._connection.options()
        if credentials:
            self._channel = grpc.aio.secure_channel(address, credentials, options=options)
        else:
            self._channel = grpc.aio.insecure_channel(address, options=options)
        self._generation = generation_service_pb2_grpc.GenerationServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def stream(
        self,
        prompt: Prompt,
        *,
        timeout_seconds: float | None = None,
        traceparent: str | None = None,
        **options: Unpack[Options],
    ) -> AsyncStream:
        """Asks for a text as it is made. For the arguments see `Client.stream`."""
        request = generation_service_pb2.StreamGenerateRequest(spec=make_spec(prompt, **options))
        metadata = self._connection.metadata(traceparent)
        return AsyncStream(self._generation.StreamGenerate(request, timeout=timeout_seconds, metadata=metadata))

    async def generate(
        self,
        prompt: Prompt,
        *,
        timeout_seconds: float | None = None,
        traceparent: str | None = None,
        **options: Unpack[Options],
    ) -> Generation:
        """Waits for a whole text. For the arguments see `Client.stream`.

        Raises:
            TandemError: there is none.
        """
        request = generation_service_pb2.GenerateRequest(spec=make_spec(prompt, **options))
        metadata = self._connection.metadata(traceparent)
        with translated():
            response = await self._generation.Generate(request, timeout=timeout_seconds, metadata=metadata)
        return Generation.from_proto(response)

    async def count_tokens(self, prompt: Prompt, *, model: str = "", timeout_seconds: float | None = None) -> int:
        """How many tokens a prompt has.

        Raises:
            TandemError: nobody says.
        """
        request = generation_service_pb2.CountTokensRequest(spec=make_spec(prompt, model=model))
        metadata = self._connection.metadata()
        with translated():
            response = await self._generation.CountTokens(request, timeout=timeout_seconds, metadata=metadata)
        return response.num_tokens

    async def models(self, *, timeout_seconds: float | None = None) -> tuple[Model, ...]:
        """Every model served.

        Raises:
            TandemError: nobody says.
        """
        request, metadata = model_service_pb2.ListModelsRequest(), self._connection.metadata()
        with translated():
            response = await self._models.ListModels(request, timeout=timeout_seconds, metadata=metadata)
        return tuple(map(Model.from_proto, response.models))

    async def model(self, name: str = "", *, timeout_seconds: float | None = None) -> Model:
        """One model; by no name the one that is served.

        Raises:
            TandemError: there is no such model, or nobody says.
        """
        request, metadata = model_service_pb2.GetModelRequest(name=name), self._connection.metadata()
        with translated():
            response = await self._models.GetModel(request, timeout=timeout_seconds, metadata=metadata)
        return Model.from_proto(response.model)

    async def close(self) -> None:
        """Ends the connection and every call over it."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        """Itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Closes it."""
        await self.close()
