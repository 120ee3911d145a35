"""What can go wrong with a call, as types: one for each status code that Tandem answers with."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

STATUS_DETAILS_KEY = "grpc-status-details-bin"
DETAILS = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.RetryInfo,
    error_details_pb2.RequestInfo,
)


class TandemError(Exception):
    """A call failed. Its subclasses are those failures that a program may want to tell apart."""

    def __init__(self, code: grpc.StatusCode, message: str, reason: str = "", domain: str = "") -> None:
        """Says what the server said.

        Args:
            code: of gRPC.
            message: for people.
            reason: for programs, such as `QUEUE_FULL`; empty when the connection failed rather than the server.
            domain: who gave the reason: `tandem`.
        """
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
        self.reason = reason
        self.domain = domain


class InvalidRequest(TandemError):
    """A field of the request has a value that cannot be served."""

    field: str = ""  # its path, such as `spec.sampling.temperature`
    description: str = ""  # what is wrong with it


class ModelNotFound(TandemError):
    """The request names a model that is not served there."""


class Unauthenticated(TandemError):
    """No API key, or one that is not known."""


class RetryableError(TandemError):
    """Refused now, likely to be served later. The client has tried again by itself before it raises this."""

    retry_after_seconds: float | None = None  # when to ask again; None: the server did not say


class Exhausted(RetryableError):
    """The server's queue or cache is full, or the caller took its share."""


class Unavailable(RetryableError):
    """Nobody can serve the request now, or nobody answers at the address."""


class DeadlineExceeded(TandemError):
    """The call took longer than its `timeout_seconds`."""


class Cancelled(TandemError):
    """The call was cancelled, by `cancel()` or by a server that stops."""


class ServerFault(TandemError):
    """A defect of the server ended the call."""

    request_id: str = ""  # under which the server's log has more


KINDS: dict[grpc.StatusCode, type[TandemError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: ModelNotFound,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Exhausted,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.INTERNAL: ServerFault,
}


class FailedCall(Protocol):
    """What a call of either kind tells once it has failed."""

    def code(self) -> grpc.StatusCode:
        """The status code."""

    def details(self) -> str | None:
        """The message."""

    def trailing_metadata(self) -> Iterable[Any] | None:
        """What the server sent last."""


@contextmanager
def translated() -> Iterator[None]:
    """Has errors of gRPC leave as those of this module."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_call(error) from None


def from_call(call: FailedCall) -> TandemError:
    """The error of a failed call."""
    details = _details(call.trailing_metadata() or ())
    info = details.get("ErrorInfo", error_details_pb2.ErrorInfo())
    error = KINDS.get(call.code(), TandemError)(call.code(), call.details() or "", info.reason, info.domain)
    match error:
        case InvalidRequest() if "BadRequest" in details:
            for violation in details["BadRequest"].field_violations[:1]:
                error.field, error.description = violation.field, violation.description
        case RetryableError() if "RetryInfo" in details:
            error.retry_after_seconds = details["RetryInfo"].retry_delay.ToTimedelta().total_seconds()
        case ServerFault() if "RequestInfo" in details:
            error.request_id = details["RequestInfo"].request_id
    return error


def _details(trailers: Iterable[tuple[str, str | bytes]]) -> dict[str, Any]:
    """The detail messages by name; those that do not parse are left out."""
    unpacked = {}
    for key, serialized in trailers:
        if key != STATUS_DETAILS_KEY or not isinstance(serialized, bytes):
            continue
        try:
            for packed in status_pb2.Status.FromString(serialized).details:
                for kind in DETAILS:
                    message = kind()
                    if packed.Unpack(message):
                        unpacked[kind.DESCRIPTOR.name] = message
        except DecodeError:
            continue
    return unpacked
