"""Starts the services of a plan, keeps them running, and stops them from the outside in."""

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Iterable
from types import TracebackType

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tandem.cli.child import Child
from tandem.cli.parser import BAD_USAGE
from tandem.cli.plan import Plan, ServicePlan
from tandem.core.errors import ConfigError, TandemError
from tandem.internal.v1 import verifier_service_pb2, verifier_service_pb2_grpc
from tandem.rpc.channel import open_channel
from tandem.verifier.attachment import ATTACH_SECONDS

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
# A service that ran this long has earned a short pause again.
SETTLED_SECONDS = 60.0
POLL_SECONDS = 0.1
DRAFTER_SECONDS = ATTACH_SECONDS + 15.0  # a verifier's first try may be in vain: kernels are compiled then


class StartFailed(TandemError):
    """A service ended before it was ready."""


class Supervisor:
    """The services of one plan, as an async context: ready inside, gone after.

    A service that ends before it was ever ready cannot be helped: entering fails. One that ends later is started again,
    after a pause that doubles each time.
    """

    def __init__(
        self,
        plan: Plan,
        on_line: Callable[[str, str], None],
        on_event: Callable[[str], None],
        on_trouble: Callable[[str], None],
    ) -> None:
        """Starts nothing yet.

        Args:
            plan: what to run.
            on_line: given each line that a service writes, after the service's name.
            on_event: told when a service is ready.
            on_trouble: told when one died.
        """
        self._plan = plan
        self._on_line = on_line
        self._on_event = on_event
        self._on_trouble = on_trouble
        self._hurry = asyncio.Event()
        self._keeping: dict[str, asyncio.Task[None]] = {}
        self.pids: dict[str, int] = {}  # of each service's latest process

    async def __aenter__(self) -> "Supervisor":
        """Starts all services at once and waits until each is ready.

        Raises:
            ConfigError: a service refuses its settings or checkpoint.
            StartFailed: a service ended for another reason.
        """
        try:
            ready = {service.name: asyncio.Event() for service in self._plan.services}
            for service in self._plan.services:
                self._keeping[service.name] = asyncio.create_task(self._keep(service, ready[service.name]))
            all_ready = asyncio.create_task(_wait_for_all(ready.values()))
            try:
                await asyncio.wait([all_ready, *self._keeping.values()], return_when=asyncio.FIRST_COMPLETED)
            finally:
                all_ready.cancel()
            for keeping in self._keeping.values():
                if keeping.done():
                    keeping.result()
            if self._plan.has_drafter:
                await self._wait_for_drafter()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stops all: gateway, verifier, drafter."""
        await self._stop()

    async def wait(self) -> None:
        """Returns never; raises when a service cannot be kept."""
        # Not gathered: being cancelled here would stop all services at once, not in order.
        ended, _ = await asyncio.wait(self._keeping.values(), return_when=asyncio.FIRST_COMPLETED)
        for keeping in ended:
            keeping.result()

    def hurry(self) -> None:
        """Waits no longer for running requests when stopping."""
        self._hurry.set()

    async def _stop(self) -> None:
        for service in reversed(self._plan.services):
            keeping = self._keeping.get(service.name)
            if keeping:
                keeping.cancel()
                await asyncio.gather(keeping, return_exceptions=True)

    async def _keep(self, service: ServicePlan, is_ready: asyncio.Event) -> None:
        pause_seconds = FIRST_PAUSE_SECONDS
        while True:
            started_at = time.monotonic()
            child = await Child.start(service, self._on_line)
            self.pids[service.name] = child.pid
            try:
                if await _is_serving(service, child):
                    is_ready.set()
                    self._on_event(f"{service.name} is ready ({time.monotonic() - started_at:.1f} s, pid {child.pid})")
                code = await child.wait()
            finally:
                await child.stop(self._hurry)
            if not is_ready.is_set():
                if code == BAD_USAGE:
                    raise ConfigError(child.error or f"the {service.name} refuses its settings")
                raise StartFailed(f"the {service.name} did not start: {child.error or _ending(code)}")
            if time.monotonic() - started_at > SETTLED_SECONDS:
                pause_seconds = FIRST_PAUSE_SECONDS
            why = child.error or _ending(code)
            self._on_trouble(f"{service.name} died ({why}); starts again in {pause_seconds:g} s")
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)

    async def _wait_for_drafter(self) -> None:
        """The verifier takes up a drafter when it finds one, which may be after it is ready itself."""
        async with open_channel(self._plan.verifier) as channel:
            stub = verifier_service_pb2_grpc.VerifierServiceStub(channel)
            give_up_at = time.monotonic() + DRAFTER_SECONDS
            while time.monotonic() < give_up_at:
                try:
                    described = await stub.DescribeModel(verifier_service_pb2.DescribeModelRequest())
                    if described.model.HasField("drafter"):
                        return
                except grpc.aio.AioRpcError as error:
                    logger.debug("verifier does not answer: %s", error.details())
                await asyncio.sleep(POLL_SECONDS)
        self._on_trouble("the verifier has not taken up the drafter: text comes without speculation until it does")


async def _wait_for_all(events: Iterable[asyncio.Event]) -> None:
    for event in events:
        await event.wait()


async def _is_serving(service: ServicePlan, child: Child) -> bool:
    """Waits until the service says SERVING, or has ended: then False."""
    serving = asyncio.create_task(wait_until_serving(service.address))
    ended = asyncio.create_task(child.wait())
    try:
        await asyncio.wait([serving, ended], return_when=asyncio.FIRST_COMPLETED)
        return not ended.done()
    finally:
        for task in (serving, ended):
            task.cancel()
        await asyncio.gather(serving, ended, return_exceptions=True)


async def wait_until_serving(address: str) -> None:
    """Returns once the server at `address` says SERVING; waits for it to come."""
    async with open_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while True:
            try:
                async for response in stub.Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True):
                    if response.status == health_pb2.HealthCheckResponse.SERVING:
                        return
            except grpc.aio.AioRpcError as error:
                logger.debug("%s does not answer: %s", address, error.details())
            await asyncio.sleep(POLL_SECONDS)


def _ending(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
