"""The client of programs without asyncio. Threads may share one."""

from collections.abc import Iterator
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
from tandem_client.errors import translated
from tandem_client.model import Model
from tandem_client.options import Options, Prompt, make_spec
from tandem_client.progress import Progress
from tandem_client.results import Delta, Generation
from tandem_client.tls import Tls


class Stream(Progress, Iterator[Delta]):
    """A text as it is made: iterate over its deltas. Leaving its `with` block cancels what is left of it."""

    def __init__(self, call: "grpc._CallIterator[generation_service_pb2.StreamGenerateResponse]") -> None:
        """Reads from `call`."""
        super().__init__()
        self._call = call

    def __next__(self) -> Delta:
        """Waits for more text.

        Raises:
            TandemError: the text was refused, broke off or was cancelled.
        """
        with translated():
            for response in self._call:
                if delta := self._take(response):
                    return delta
        raise StopIteration

    def cancel(self) -> None:
        """Ends the work at the server; whoever waits for text gets `Cancelled`. Any thread may call it."""
        self._call.cancel()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Cancels what is left."""
        self.cancel()


class Client:
    """Calls of one server, over one connection that is made when first used and again whenever it breaks."""

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        api_key: str | None = None,
        tls: Tls | None = None,
        max_attempts: int = DEFAULT_MAX_ATTEMPTS,
    ) -> None:
        """Connects to nobody yet.

        Args:
            address: `host:port` or `unix:/path`.
            api_key: that the server asks for.
            tls: how the server is known; None: plain text.
            max_attempts: times that a refused call is made; 1: it is not made again.

        Raises:
            OSError: a file of `tls` cannot be read.
            ValueError: arguments that exclude each other.
        """
        self._connection = Connection(address, api_key, tls, max_attempts)
        credentials, options = self._connection.credentials(), self._connection.options()
        if credentials:
            self._channel = grpc.secure_channel(address, credentials, options=options)
        else:
            self._channel = grpc.insecure_channel(address, options=options)
        self._generation = generation_service_pb2_grpc.GenerationServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def stream(
        self,
        prompt: Prompt,
        *,
        timeout_seconds: float | None = None,
        traceparent: str | None = None,
        **options: Unpack[Options],
    ) -> Stream:
        """Asks for a text as it is made. Errors come with the first delta.

        Args:
            prompt: what to continue.
            timeout_seconds: for the whole text; None: any time.
            traceparent: the W3C trace context that the call belongs to.
            options: see `Options`.
        """
        request = generation_service_pb2.StreamGenerateRequest(spec=make_spec(prompt, **options))
        metadata = self._connection.metadata(traceparent)
        return Stream(self._generation.StreamGenerate(request, timeout=timeout_seconds, metadata=metadata))

    def generate(
        self,
        prompt: Prompt,
        *,
        timeout_seconds: float | None = None,
        traceparent: str | None = None,
        **options: Unpack[Options],
    ) -> Generation:
        """Waits for a whole text. For the arguments see `stream`.

        Raises:
            TandemError: there is none.
        """
        request = generation_service_pb2.GenerateRequest(spec=make_spec(prompt, **options))
        metadata = self._connection.metadata(traceparent)
        with translated():
            return Generation.from_proto(self._generation.Generate(request, timeout=timeout_seconds, metadata=metadata))

    def count_tokens(self, prompt: Prompt, *, model: str = "", timeout_seconds: float | None = None) -> int:
        """How many tokens a prompt has.

        Raises:
            TandemError: nobody says.
        """
        request = generation_service_pb2.CountTokensRequest(spec=make_spec(prompt, model=model))
        metadata = self._connection.metadata()
        with translated():
            return self._generation.CountTokens(request, timeout=timeout_seconds, metadata=metadata).num_tokens

    def models(self, *, timeout_seconds: float | None = None) -> tuple[Model, ...]:
        """Every model served.

        Raises:
            TandemError: nobody says.
        """
        request, metadata = model_service_pb2.ListModelsRequest(), self._connection.metadata()
        with translated():
            response = self._models.ListModels(request, timeout=timeout_seconds, metadata=metadata)
        return tuple(map(Model.from_proto, response.models))

    def model(self, name: str = "", *, timeout_seconds: float | None = None) -> Model:
        """One model; by no name the one that is served.

        Raises:
            TandemError: there is no such model, or nobody says.
        """
        request, metadata = model_service_pb2.GetModelRequest(name=name), self._connection.metadata()
        with translated():
            response = self._models.GetModel(request, timeout=timeout_seconds, metadata=metadata)
        return Model.from_proto(response.model)

    def close(self) -> None:
        """Ends the connection and every call over it."""
        self._channel.close()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Closes it."""
        self.close()
