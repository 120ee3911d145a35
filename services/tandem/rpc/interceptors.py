"""Server interceptors: servicers raise, and what they raise becomes a status.

A request passes `ErrorInterceptor` first, then a service's own (credentials, limits), then `DrainInterceptor`. Any of
them may raise a `TandemError` before the handler is even looked at.
"""

import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any, TypeAlias

import grpc

from tandem.core.errors import EngineFault, TandemError
from tandem.rpc.drain import Drain
from tandem.rpc.errors import to_status
from tandem.rpc.request_id import adopt_request_id, current_request_id

logger = logging.getLogger(__name__)

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # subscriptable in its stubs only
Context = grpc.aio.ServicerContext[Any, Any]
Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]"
Behavior = Callable[[Any, Context], Any]
# Surrounds one call. Given the request message, or for client streams their iterator.
Guard = Callable[[Any, Context], AbstractAsyncContextManager[None]]


def surround(handler: Handler, guard: Guard) -> Handler:
    """The same handler with `guard` around each call.

    Streaming behaviours written as generators are drained here rather than by grpc: so a dropped call closes the
    generator at once instead of when it is garbage collected.
    """
    if handler.request_streaming:
        behavior: Any = handler.stream_stream if handler.response_streaming else handler.stream_unary
    else:
        behavior = handler.unary_stream if handler.response_streaming else handler.unary_unary
    return _handler_like(handler, _surround_behavior(behavior, guard))


def _surround_behavior(behavior: Behavior, guard: Guard) -> Behavior:
    if inspect.isasyncgenfunction(behavior):

        async def drain(request: Any, context: Context) -> None:
            async with guard(request, context), aclosing(behavior(request, context)) as responses:
                async for response in responses:
                    try:
                        await context.write(response)
                    except grpc.aio.InternalError:
                        return  # the client went away while a message waited for it: nobody is left to be told

        return drain

    async def call(request: Any, context: Context) -> Any:
        async with guard(request, context):
            return await behavior(request, context)

    return call


def _handler_like(handler: Handler, behavior: Behavior) -> Handler:
    constructors: dict[tuple[bool, bool], Any] = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    constructor = constructors[handler.request_streaming, handler.response_streaming]
    wrapped: Handler = constructor(behavior, handler.request_deserializer, handler.response_serializer)
    return wrapped


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns what later interceptors and servicers raise into statuses. The outermost one."""

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        """Wraps the handler; when one could not even be found, answers in its place."""
        try:
            handler = await continuation(handler_call_details)
        except TandemError as error:
            return _refusal(error)
        return surround(handler, _answer_errors) if handler is not None else None


@asynccontextmanager
async def _answer_errors(request: Any, context: Context) -> AsyncIterator[None]:
    adopt_request_id(request)
    try:
        yield
    except grpc.aio.AbortError:
        raise
    except Exception as error:
        await _abort(context, error)


async def _abort(context: Context, error: Exception) -> None:
    request_id = current_request_id()
    code, message, trailers = to_status(error, request_id)
    if code is grpc.StatusCode.INTERNAL:
        # An EngineFault has been explained where it was raised; anything else is news.
        logger.error("request %s failed: %s", request_id, error, exc_info=not isinstance(error, EngineFault))
    else:
        logger.info("request %s refused: %s: %s", request_id, code.name, message)
    await context.abort(code, message, trailers)


def _refusal(error: TandemError) -> Handler:
    """A handler that answers with `error` and reads nothing: a refused caller's message is not even parsed."""

    async def refuse(_requests: Any, context: Context) -> None:
        adopt_request_id(None)
        await _abort(context, error)

    refusing: Handler = grpc.stream_stream_rpc_method_handler(refuse)
    return refusing


class DrainInterceptor(grpc.aio.ServerInterceptor):
    """Counts the calls of a server's own services, and refuses new ones once it is about to stop."""

    def __init__(self, drain: Drain) -> None:
        """Counts in `drain`."""
        self.services: set[str] = set()  # full names; health and reflection are not among them
        self._drain = drain

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        """Counts the call in.

        Raises:
            Draining: the server is about to stop.
        """
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.rpartition("/")[0].lstrip("/") not in self.services:
            return handler
        self._drain.check()
        return surround(handler, self._count)

    @asynccontextmanager
    async def _count(self, _request: Any, _context: Context) -> AsyncIterator[None]:
        with self._drain.counted():
            yield
