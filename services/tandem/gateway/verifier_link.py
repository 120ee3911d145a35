"""The connection to one verifier: whether it serves, what it serves, its streams, and what they leave to do."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tandem.core.errors import NoReplica
from tandem.gateway.ejection import Ejection
from tandem.gateway.prefix_memory import PrefixMemory
from tandem.gateway.workload import Workload
from tandem.internal.v1 import verifier_service_pb2, verifier_service_pb2_grpc
from tandem.rpc.errors import from_rpc_error
from tandem.v1 import model_service_pb2

logger = logging.getLogger(__name__)

VERIFIER_SERVICE: str = verifier_service_pb2.DESCRIPTOR.services_by_name["VerifierService"].full_name
DESCRIBE_SECONDS = 5.0
RETRY_SECONDS = 0.2


class VerifierLink:
    """One verifier, as the gateway sees it. Connects by itself, again and again, while `watch` runs."""

    def __init__(self, address: str, channel: grpc.aio.Channel, model_name: str) -> None:
        """Knows nothing of the verifier yet.

        Args:
            address: what logs call it.
            channel: to the verifier, that `close` closes.
            model_name: what clients call the model; empty for the verifier's own name.
        """
        self.address = address
        self._channel = channel
        self._verifier = verifier_service_pb2_grpc.VerifierServiceStub(channel)
        self._health = health_pb2_grpc.HealthStub(channel)
        self._model_name = model_name
        self.model: model_service_pb2.Model | None = None  # None while it does not say SERVING
        self.identity = b""  # of that model; empty without one
        self.is_connected = False
        self.workload = Workload()
        self.prefixes = PrefixMemory()
        self.ejection = Ejection()
        self._said = ""

    async def watch(self, on_change: Callable[[], None]) -> None:
        """Follows the verifier's health for as long as it runs.

        Args:
            on_change: called whenever the verifier's state is news.
        """
        while True:
            # Waits for as long as nobody listens there.
            watching = self._health.Watch(health_pb2.HealthCheckRequest(service=VERIFIER_SERVICE), wait_for_ready=True)
            try:
                async for response in watching:
                    self.is_connected = True
                    if response.status == health_pb2.HealthCheckResponse.SERVING:
                        self.model = await self._describe()
                        self.identity = identity(self.model)
                        self._say(logging.INFO, f"serves {self.model.name}")
                    else:
                        self._say(logging.INFO, "does not serve now")
                        self.model, self.identity = None, b""
                    on_change()
            except grpc.aio.AioRpcError as error:
                self._say(logging.WARNING, f"lost: {error.code().name} {error.details()}")
            finally:
                watching.cancel()
                self.model, self.identity, self.is_connected = None, b"", False
                self.prefixes.clear()
                on_change()
            await asyncio.sleep(RETRY_SECONDS)

    async def close(self) -> None:
        """Breaks what is left of its calls."""
        await self._channel.close()

    async def describe(self) -> model_service_pb2.Model:
        """What it serves, asked anew: drafters come and go.

        Raises:
            TandemError: what the verifier answered.
        """
        try:
            return await self._describe()
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None

    async def generate(
        self, request: verifier_service_pb2.GenerateRequest, timeout_seconds: float | None
    ) -> AsyncGenerator[verifier_service_pb2.GenerateResponse, None]:
        """The verifier's answer. Closing the iterator frees the sequence.

        Reads a message when it is asked for one: what nobody asks for waits at the verifier, by HTTP/2 flow control.

        Raises:
            TandemError: as the verifier raised it, or what broke between here and there.
        """
        call = self._verifier.Generate(request, timeout=timeout_seconds)
        with self.workload.of(request) as work:
            try:
                async for response in call:
                    if response.HasField("started"):
                        self.ejection.succeed()
                    work.take(response)
                    yield response
            except grpc.aio.AioRpcError as rpc_error:
                error = from_rpc_error(rpc_error)
                if isinstance(error, NoReplica):
                    self.ejection.fail()
                raise error from None
            finally:
                call.cancel()

    def _say(self, level: int, news: str) -> None:
        """Logs what is news: a verifier that is about to stop ends every watch, after saying the same."""
        if news != self._said:
            logger.log(level, "verifier at %s %s", self.address, news)
            self._said = news

    async def _describe(self) -> model_service_pb2.Model:
        response = await self._verifier.DescribeModel(
            verifier_service_pb2.DescribeModelRequest(), timeout=DESCRIBE_SECONDS
        )
        model = response.model
        model.name = self._model_name or model.name
        return model


def identity(model: model_service_pb2.Model) -> bytes:
    """The same for models that write the same texts; drafters make no difference to those."""
    bare = model_service_pb2.Model()
    bare.CopyFrom(model)
    bare.ClearField("drafter")
    return bare.SerializeToString(deterministic=True)
