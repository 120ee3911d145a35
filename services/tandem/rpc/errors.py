"""The one table between errors and gRPC status codes, in both directions.

Every error carries `google.rpc.ErrorInfo` (domain `tandem`); by kind also BadRequest with the field's path, RetryInfo
with the `grpc-retry-pushback-ms` trailer, or RequestInfo. An exception that is no `TandemError` shows nothing of
itself.
"""

import math
from collections.abc import Iterable

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from tandem.core.errors import (
    DeadlineExceeded,
    Draining,
    EngineFault,
    Exhausted,
    InvalidRequest,
    KvCacheFull,
    Loading,
    NoReplica,
    QueueFull,
    RateLimited,
    RetryableError,
    TandemError,
    Unauthenticated,
    Unavailable,
    UnknownModel,
)

ERROR_DOMAIN = "tandem"
STATUS_DETAILS_KEY = "grpc-status-details-bin"
RETRY_PUSHBACK_KEY = "grpc-retry-pushback-ms"
# Clients accept 8 KiB of trailers by default; the text travels twice, once percent-encoded.
MAX_MESSAGE_CHARACTERS = 500

STATUS_CODES: dict[type[TandemError], grpc.StatusCode] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    UnknownModel: grpc.StatusCode.NOT_FOUND,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    QueueFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    KvCacheFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    RateLimited: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    Loading: grpc.StatusCode.UNAVAILABLE,
    Draining: grpc.StatusCode.UNAVAILABLE,
    NoReplica: grpc.StatusCode.UNAVAILABLE,
    DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    EngineFault: grpc.StatusCode.INTERNAL,
}

_BY_REASON = {error.reason: error for error in STATUS_CODES}

Trailers = tuple[tuple[str, str | bytes], ...]


def public_error(error: Exception, request_id: str) -> TandemError:
    """What a client may know of an error.

    Args:
        error: anything a request ended with. What the table does not know becomes an `EngineFault`.
        request_id: named in an `EngineFault`, the only trace of it that a client gets.
    """
    if type(error) not in STATUS_CODES or isinstance(error, EngineFault):
        return EngineFault(f"internal error; the log has more under request id {request_id}")
    assert isinstance(error, TandemError)
    return error


def to_status(error: Exception, request_id: str) -> tuple[grpc.StatusCode, str, Trailers]:
    """Status code, message and trailing metadata of an error.

    Args:
        error: anything a servicer raised.
        request_id: see `public_error`.
    """
    error = public_error(error, request_id)
    code = STATUS_CODES[type(error)]
    message = str(error)[:MAX_MESSAGE_CHARACTERS]
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in _details(error, request_id):
        status.details.add().Pack(detail)
    trailers: Trailers = ((STATUS_DETAILS_KEY, status.SerializeToString()),)
    if isinstance(error, RetryableError):
        trailers += ((RETRY_PUSHBACK_KEY, str(math.ceil(error.retry_after_seconds * 1000))),)
    return code, message, trailers


def from_rpc_error(rpc_error: grpc.aio.AioRpcError) -> TandemError:
    """The error that a Tandem service raised, as it was before the wire.

    What carries no such detail came from the transport: a connection that broke, or a deadline.
    """
    details = _unpack(rpc_error)
    info = details.get("ErrorInfo")
    if isinstance(info, error_details_pb2.ErrorInfo) and info.domain == ERROR_DOMAIN:
        kind = _BY_REASON.get(info.reason, EngineFault)
        message = rpc_error.details() or ""
        bad_request = details.get("BadRequest")
        if kind is InvalidRequest and isinstance(bad_request, error_details_pb2.BadRequest):
            violation = bad_request.field_violations[0]
            return InvalidRequest(violation.field, violation.description)
        retry = details.get("RetryInfo")
        if issubclass(kind, RetryableError) and isinstance(retry, error_details_pb2.RetryInfo):
            return kind(message, retry.retry_delay.ToTimedelta().total_seconds())
        if kind is not InvalidRequest:
            return kind(message)
    match rpc_error.code():
        # A server that stops cancels the calls it still has.
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            return NoReplica("the connection to the model broke")
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded("the deadline passed before the text was complete")
        case _:
            return EngineFault(f"unexpected answer: {rpc_error.code()}: {rpc_error.details()}")


def _details(error: TandemError, request_id: str) -> Iterable[Message]:
    yield error_details_pb2.ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN)
    match error:
        case InvalidRequest():
            violation = error_details_pb2.BadRequest.FieldViolation(
                field=error.field, description=error.description[:MAX_MESSAGE_CHARACTERS]
            )
            yield error_details_pb2.BadRequest(field_violations=[violation])
        case RetryableError():
            delay = Duration()
            delay.FromMilliseconds(math.ceil(error.retry_after_seconds * 1000))
            yield error_details_pb2.RetryInfo(retry_delay=delay)
        case EngineFault():
            yield error_details_pb2.RequestInfo(request_id=request_id)


def _unpack(rpc_error: grpc.aio.AioRpcError) -> dict[str, Message]:
    """The detail messages of an error by name; empty when there are none or they do not parse."""
    trailers = rpc_error.trailing_metadata()
    serialized = trailers.get(STATUS_DETAILS_KEY) if trailers is not None else None
    if not isinstance(serialized, bytes):
        return {}
    try:
        packed = status_pb2.Status.FromString(serialized).details
        known = (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo)
        unpacked = {}
        for detail in packed:
            for kind in known:
                message = kind()
                if detail.Unpack(message):
                    unpacked[kind.DESCRIPTOR.name] = message
        return unpacked
    except DecodeError:
        return {}
