"""What stands around every request over HTTP, as interceptors do around a call of gRPC.

Outermost first: trace, duration and request id; errors as answers; who calls, and what it may take; and whether the
gateway is about to stop.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from opentelemetry import trace
from opentelemetry.trace import SpanKind
from starlette.types import Receive, Scope, Send

from tandem.core.errors import Draining, EngineFault
from tandem.gateway.authentication import Authentication
from tandem.gateway.http.call import ClientGone, HttpCall
from tandem.gateway.http.errors import refusal_of
from tandem.gateway.rate_limit import Allowances
from tandem.rpc.drain import Drain
from tandem.rpc.request_id import adopt_given_id
from tandem.telemetry import metrics as names
from tandem.telemetry.metrics import Metrics
from tandem.telemetry.tracing import TRACER, context_from, fail

logger = logging.getLogger(__name__)

CLIENT_GONE = 499  # what proxies log for a client that went before it was answered
_TRACE_HEADERS = ("traceparent", "tracestate")

Endpoint = Callable[[HttpCall], Awaitable[None]]


@dataclass
class Guard:
    """Lets requests through to endpoints, which raise what they cannot answer."""

    authentication: Authentication
    allowances: Allowances
    drain: Drain
    metrics: Metrics
    running: set["asyncio.Task[None]"] = field(default_factory=set)
    is_stopping: bool = False

    def around(self, route: str, endpoint: Endpoint, *, is_generation: bool = False) -> "GuardedEndpoint":
        """An application that answers at `route` with `endpoint`, to holders of a key and within their share."""
        return GuardedEndpoint(self, route, endpoint, is_generation)

    def stop(self) -> None:
        """Ends the requests that still run; each is told that the gateway stops."""
        self.is_stopping = True
        for task in self.running:
            task.cancel()


@dataclass(frozen=True)
class GuardedEndpoint:
    """See `Guard.around`."""

    guard: Guard
    route: str
    endpoint: Endpoint
    is_generation: bool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, whatever happens."""
        task = asyncio.current_task()
        assert task
        self.guard.running.add(task)
        try:
            await self._watched(scope, receive, send)
        finally:
            self.guard.running.discard(task)

    async def _watched(self, scope: Scope, receive: Receive, send: Send) -> None:
        started_at = time.perf_counter()
        call = HttpCall(scope, receive, send)
        headers = {name: call.headers[name] for name in _TRACE_HEADERS if name in call.headers}
        attributes = {"http.request.method": scope["method"], "http.route": self.route, "url.scheme": scope["scheme"]}
        name = f"{scope['method']} {self.route}"
        span = TRACER.start_span(name, context_from(headers), SpanKind.SERVER, attributes)
        status = 500
        try:
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                status = await self._answered(call)
        finally:
            span.set_attribute("http.response.status_code", status)
            if status >= 500:
                fail(span, str(status))
            span.end()
            seconds = time.perf_counter() - started_at
            self.guard.metrics.observe(
                names.HTTP_SECONDS,
                seconds,
                http_request_method=scope["method"],
                http_route=self.route,
                http_response_status_code=status,
            )

    async def _answered(self, call: HttpCall) -> int:
        """The status; of a stream that broke off, the one that its error would have had before it began."""
        call.request_id = adopt_given_id(call.given_request_id)
        try:
            # Who is it, and has it had its share: in this order, so that nobody spends another's share.
            self.guard.authentication.identify(call.headers.getlist("authorization"))
            if self.is_generation:
                self.guard.allowances.check()
            self.guard.drain.check()
            with self.guard.drain.counted():
                await self.endpoint(call)
            assert call.status, "an endpoint answers or raises"
            return call.status
        except ClientGone:
            logger.info("request %s: its client went away", call.request_id)
            return CLIENT_GONE
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self.guard.is_stopping or task is None:
                raise
            task.uncancel()
            return await self._refused(call, Draining("this server stops"))
        except Exception as error:
            return await self._refused(call, error)

    async def _refused(self, call: HttpCall, error: Exception) -> int:
        refusal = refusal_of(error, call.request_id)
        if refusal.status == 500:
            # An EngineFault has been explained where it was raised; anything else is news.
            is_news = not isinstance(error, EngineFault)
            logger.error("request %s failed: %s", call.request_id, error, exc_info=error if is_news else None)
        else:
            logger.info("request %s refused: %d %s: %s", call.request_id, refusal.status, refusal.code, refusal)
        await call.refuse(refusal)
        return refusal.status
