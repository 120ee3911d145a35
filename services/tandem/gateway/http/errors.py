"""The one table between errors and HTTP: statuses follow from the gRPC codes, bodies are OpenAI's error object."""

import math
import re
from typing import Any

import grpc

from tandem.core.errors import InvalidRequest, RetryableError, TandemError, Unauthenticated
from tandem.rpc.errors import MAX_MESSAGE_CHARACTERS, STATUS_CODES, public_error

# Status, and the `type` that OpenAI's clients know it by.
HTTP_STATUSES: dict[grpc.StatusCode, tuple[int, str]] = {
    grpc.StatusCode.INVALID_ARGUMENT: (400, "invalid_request_error"),
    grpc.StatusCode.UNAUTHENTICATED: (401, "authentication_error"),
    grpc.StatusCode.NOT_FOUND: (404, "invalid_request_error"),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (429, "rate_limit_error"),
    grpc.StatusCode.INTERNAL: (500, "server_error"),
    grpc.StatusCode.UNAVAILABLE: (503, "service_unavailable_error"),
    grpc.StatusCode.DEADLINE_EXCEEDED: (504, "timeout_error"),
}

# From paths in a GenerationSpec to those in a request's body, each rule applied in turn.
_RENAMES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^spec\.(text|token_ids|prompt)", "prompt"),
        (r"^spec\.request_id", "x-request-id"),
        (r"^spec\.conversation\.thinking", "reasoning_effort"),
        (r"^spec\.conversation\.(?=messages|tools)", ""),
        (r"^spec\.conversation$", "messages"),
        (r"^spec\.output_format\.(regex|grammar)", r"structured_outputs.\1"),
        (r"^spec\.output_format.*", "response_format"),
        (r"^spec\.speculation\.", "tandem."),
        (r"^spec\.output\.prompt_logprobs", "echo"),
        (r"^spec\.(?:(?:sampling|stopping|output)\.)?", ""),
        (r"^include_stop$", "include_stop_str_in_output"),
        (r"^(tools\[\d+\]|messages\[\d+\]\.tool_calls\[\d+\])\.", r"\1.function."),
        (r"^(messages\[\d+\])\.text$", r"\1.content"),
        (r"^(messages\[\d+\])\.thought$", r"\1.reasoning_content"),
        (r"^(messages\[\d+\])\.tool_results(?:\[\d+\]\.name)?$", r"\1.tool_call_id"),
        (r"^(messages\[\d+\])\.tool_results\[\d+\]\..*", r"\1.content"),
        (r"_json$", ""),
    )
)


class Refusal(Exception):
    """A request that ends with a status of HTTP's own, or with a `TandemError` as HTTP tells it."""

    def __init__(
        self,
        status: int,
        kind: str,
        code: str,
        message: str,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """What to answer.

        Args:
            status: of HTTP.
            kind: OpenAI's `type`.
            code: what happened, for programs.
            message: what to change, for people.
            param: path of the field that is wrong; None: it is none.
            headers: besides the usual ones.
        """
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.code = code
        self.param = param
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        error = {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error}


def bad_field(param: str | None, description: str) -> Refusal:
    """What a body is refused with whose field `param` cannot be served."""
    message = f"{param}: {description}" if param else description
    status, kind = HTTP_STATUSES[grpc.StatusCode.INVALID_ARGUMENT]
    return Refusal(status, kind, "invalid_request", message[:MAX_MESSAGE_CHARACTERS], param)


def too_large(max_bytes: int) -> Refusal:
    """What a body of more than `max_bytes` is refused with."""
    return Refusal(413, "invalid_request_error", "request_too_large", f"a body has at most {max_bytes} bytes")


def refusal_of(error: Exception, request_id: str) -> Refusal:
    """What an error becomes over HTTP; what the table does not know shows nothing of itself."""
    if isinstance(error, Refusal):
        return error
    known = public_error(error, request_id)
    if isinstance(known, InvalidRequest):
        return bad_field(param_of(known.field), known.description)
    status, kind = HTTP_STATUSES[STATUS_CODES[type(known)]]
    return Refusal(status, kind, known.reason.lower(), str(known)[:MAX_MESSAGE_CHARACTERS], None, _headers(known))


def param_of(field: str) -> str:
    """The name in a request's body of a field that a `GenerationSpec` has at path `field`."""
    for pattern, name in _RENAMES:
        field = pattern.sub(name, field)
    return field


def _headers(error: TandemError) -> dict[str, str]:
    match error:
        case RetryableError():
            milliseconds = math.ceil(error.retry_after_seconds * 1000)
            return {"retry-after": str(max(1, math.ceil(milliseconds / 1000))), "retry-after-ms": str(milliseconds)}
        case Unauthenticated():
            return {"www-authenticate": "Bearer"}
        case _:
            return {}
