"""The standard health service over grpc_health's messages.

Not grpc_health's own servicer: there one watcher that stops reading holds up every change of state, and watchers keep a
stopping server alive.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVICE_NAME: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

_Status = health_pb2.HealthCheckResponse
Context = grpc.aio.ServicerContext[Any, Any]


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # generated without types
    """Check and Watch for the whole server (empty name) and each of its services, which share one state.

    Health itself is a service too, and serves for as long as it answers: it tells the living from the dead, where the
    others tell who is ready.
    """

    def __init__(self, services: Iterable[str]) -> None:
        """Starts NOT_SERVING: being reachable is not being ready."""
        self._services = frozenset(services) | {"", SERVICE_NAME}
        self._is_serving = False
        self._has_ended = False
        self._changed = asyncio.Event()

    @property
    def is_serving(self) -> bool:
        """Whether requests are welcome."""
        return self._is_serving and not self._has_ended

    def set_serving(self, is_serving: bool) -> None:
        """Tells all watchers whether requests are welcome. After `end` nothing changes any more."""
        self._is_serving = is_serving
        self._announce()

    def end(self) -> None:
        """Says NOT_SERVING for good and lets every watcher go."""
        self._has_ended = True
        self._announce()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> health_pb2.HealthCheckResponse:
        """The state now; NOT_FOUND for a service that is not here."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service here")
        return _Status(status=self._status(request.service))

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The state now and whenever it changes, until the client or the server goes."""
        told = None
        while True:
            changed, has_ended = self._changed, self._has_ended
            status = self._status(request.service)
            if status != told:
                yield _Status(status=status)
                told = status
            if has_ended:
                return
            await changed.wait()

    def _status(self, service: str) -> health_pb2.HealthCheckResponse.ServingStatus.ValueType:
        if service not in self._services:
            return _Status.SERVICE_UNKNOWN
        if service == SERVICE_NAME:
            return _Status.SERVING
        return _Status.SERVING if self.is_serving else _Status.NOT_SERVING

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
