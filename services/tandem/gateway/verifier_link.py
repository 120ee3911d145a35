"""The connection to the verifier: whether it serves, what it serves, and its streams."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tandem.core.errors import Loading, NoReplica, UnknownModel
from tandem.internal.v1 import verifier_service_pb2, verifier_service_pb2_grpc
from tandem.rpc.errors import from_rpc_error
from tandem.v1 import model_service_pb2

logger = logging.getLogger(__name__)

VERIFIER_SERVICE: str = verifier_service_pb2.DESCRIPTOR.services_by_name["VerifierService"].full_name
DESCRIBE_SECONDS = 5.0
RETRY_SECONDS = 0.2


class VerifierLink:
    """One verifier, as the gateway sees it. Connects by itself, again and again, while `watch` runs."""

    def __init__(self, channel: grpc.aio.Channel, model_name: str) -> None:
        """Knows nothing of the verifier yet.

        Args:
            channel: to the verifier; the caller closes it.
            model_name: what clients call the model; empty for the verifier's own name.
        """
        self._verifier = verifier_service_pb2_grpc.VerifierServiceStub(channel)
        self._health = health_pb2_grpc.HealthStub(channel)
        self._model_name = model_name
        self._model: model_service_pb2.Model | None = None  # set while the verifier says SERVING
        self._is_connected = False

    async def watch(self, on_change: Callable[[bool], None]) -> None:
        """Follows the verifier's health for as long as it runs.

        Args:
            on_change: told whether requests can be served, whenever the verifier's state is news.
        """
        while True:
            # Waits for as long as nobody listens there.
            watching = self._health.Watch(health_pb2.HealthCheckRequest(service=VERIFIER_SERVICE), wait_for_ready=True)
            try:
                async for response in watching:
                    self._is_connected = True
                    if response.status == health_pb2.HealthCheckResponse.SERVING:
                        model = await self._describe()
                        logger.info("verifier serves %s", model.name)
                        on_change(True)
                    else:
                        logger.info("verifier does not serve now")
                        self._model = None
                        on_change(False)
            except grpc.aio.AioRpcError as error:
                logger.warning("verifier lost: %s %s", error.code().name, error.details())
            finally:
                watching.cancel()
                self._model, self._is_connected = None, False
                on_change(False)
            await asyncio.sleep(RETRY_SECONDS)

    def model(self, name: str) -> model_service_pb2.Model:
        """The model called `name`, or with an empty name the one model served, as it was last described.

        Raises:
            NoReplica: no verifier answers.
            Loading: it answers that it does not serve yet.
            UnknownModel: it serves another one.
        """
        if self._model is None:
            if self._is_connected:
                raise Loading("the model is not ready")
            raise NoReplica("no verifier answers")
        if name not in ("", self._model.name):
            raise UnknownModel(f"no model {name[:100]!r} is served here")
        return self._model

    async def describe(self, name: str) -> model_service_pb2.Model:
        """Like `model`, asked anew: drafters come and go.

        Raises:
            TandemError: as `model`, or what the verifier answered.
        """
        self.model(name)
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
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        finally:
            call.cancel()

    async def _describe(self) -> model_service_pb2.Model:
        response = await self._verifier.DescribeModel(
            verifier_service_pb2.DescribeModelRequest(), timeout=DESCRIBE_SECONDS
        )
        model = response.model
        model.name = self._model_name or model.name
        self._model = model
        return model
