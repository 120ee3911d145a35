"""Interceptors that carry the W3C trace context through gRPC, with a span for each side of a call.

Names and attributes are those of OpenTelemetry's RPC conventions. Health and reflection have no spans, and neither have
streams of requests, which live as long as a connection does.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

import grpc
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind

from tandem.rpc.interceptors import Context, Continuation, Handler, surround
from tandem.telemetry import metrics as names
from tandem.telemetry.metrics import Metrics
from tandem.telemetry.tracing import TRACER, context_from, fail, headers_of

_ClientContinuation = Callable[[Any, Any], Any]
_TRACE_HEADERS = ("traceparent", "tracestate")
# Codes that tell of a server's own failure; the others are answers.
_SERVER_ERRORS = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}


class TracingInterceptor(grpc.aio.ServerInterceptor):
    """A span and a duration for each call of a server's own services. The outermost one: it sees the last status."""

    def __init__(self, services: Collection[str], metrics: Metrics) -> None:
        """Watches calls of `services`, by their full names; what is added to them later counts too."""
        self._services = services
        self._metrics = metrics

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        """Surrounds the handler, a refusing one too."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method.lstrip("/")
        if handler is None or handler.request_streaming or method.rpartition("/")[0] not in self._services:
            return handler  # a refusal from before the handler is a stream too
        metadata = handler_call_details.invocation_metadata or ()
        headers = {key: text for key, text in metadata if key in _TRACE_HEADERS and isinstance(text, str)}

        @asynccontextmanager
        async def watch(_request: Any, context: Context) -> AsyncIterator[None]:
            started_at = time.perf_counter()
            span = TRACER.start_span(
                method,
                context_from(headers),
                SpanKind.SERVER,
                {"rpc.system.name": "grpc", "rpc.method": method, **_peer(context.peer())},
            )
            code = grpc.StatusCode.UNKNOWN
            try:
                with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                    yield
                code = grpc.StatusCode.OK
            except BaseException:
                code = _code(context)
                raise
            finally:
                span.set_attribute("rpc.response.status_code", code.name)
                if code in _SERVER_ERRORS:
                    fail(span, code.name)
                span.end()
                seconds = time.perf_counter() - started_at
                self._metrics.observe(names.RPC_SECONDS, seconds, rpc_method=method, rpc_status_code=code.name)

        return surround(handler, watch)


class _ClientTracing:
    """What both kinds of client interceptor do."""

    def __init__(self) -> None:
        """No call is under way."""
        self._ending: set[asyncio.Task[None]] = set()  # tasks that nobody else holds

    async def _call(self, continuation: _ClientContinuation, details: grpc.aio.ClientCallDetails, request: Any) -> Any:
        method = details.method.decode() if isinstance(details.method, bytes) else details.method
        method = method.lstrip("/")
        if not method.startswith("tandem."):
            return await continuation(details, request)
        attributes = {"rpc.system.name": "grpc", "rpc.method": method}
        span = TRACER.start_span(method, kind=SpanKind.CLIENT, attributes=attributes)
        headers = headers_of(span)
        if headers:
            metadata = grpc.aio.Metadata(*(details.metadata or ()), *headers.items())
            details = grpc.aio.ClientCallDetails(
                details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
            )
        call = await continuation(details, request)
        if span.is_recording():
            task = asyncio.create_task(_end_with(call, span))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
        return call


class UnaryStreamTracing(_ClientTracing, grpc.aio.UnaryStreamClientInterceptor):
    """A span for each call that a stream answers, handed on to the callee."""

    async def intercept_unary_stream(
        self, continuation: _ClientContinuation, client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        """Starts the call; the span ends with it, however that is."""
        return await self._call(continuation, client_call_details, request)


class UnaryUnaryTracing(_ClientTracing, grpc.aio.UnaryUnaryClientInterceptor):
    """A span for each call that a message answers, handed on to the callee."""

    async def intercept_unary_unary(
        self, continuation: _ClientContinuation, client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        """Starts the call; the span ends with it, however that is."""
        return await self._call(continuation, client_call_details, request)


async def _end_with(call: Any, span: Span) -> None:
    code = await call.code()
    span.set_attribute("rpc.response.status_code", code.name)
    # Who has read what it wanted cancels the rest: that is no failure.
    if code not in (grpc.StatusCode.OK, grpc.StatusCode.CANCELLED):
        fail(span, code.name)
    span.end()


def _code(context: Context) -> grpc.StatusCode:
    """What a call that did not go well ended with."""
    if context.cancelled():
        return grpc.StatusCode.CANCELLED
    code = context.code()
    by_number = {one.value[0]: one for one in grpc.StatusCode}
    if isinstance(code, int):
        return by_number.get(code, grpc.StatusCode.UNKNOWN)
    return code or grpc.StatusCode.CANCELLED


def _peer(peer: str) -> dict[str, str]:
    """Attributes of the other side, such as `ipv4:127.0.0.1:4711` or `unix:`."""
    kind, _, address = peer.partition(":")
    if kind == "unix":
        return {"network.transport": "unix"}
    host, _, port = address.rpartition(":")
    return {"network.transport": "tcp", "network.peer.address": host.strip("[]"), "network.peer.port": port}
