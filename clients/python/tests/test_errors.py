"""What a failed call tells, as types."""

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from tandem_client import (
    Cancelled,
    DeadlineExceeded,
    Exhausted,
    InvalidRequest,
    ModelNotFound,
    ServerFault,
    TandemError,
    Unauthenticated,
    Unavailable,
)
from tandem_client.errors import from_call

CODES = grpc.StatusCode


class Call:
    """A call that failed."""

    def __init__(self, code, trailers=()):
        self._code, self._trailers = code, trailers

    def code(self):
        return self._code

    def details(self):
        return "told to people"

    def trailing_metadata(self):
        return self._trailers


def with_details(code, *details):
    status = status_pb2.Status()
    for detail in (error_details_pb2.ErrorInfo(reason="A_REASON", domain="tandem"), *details):
        status.details.add().Pack(detail)
    return from_call(Call(code, [("other", "x"), ("grpc-status-details-bin", status.SerializeToString())]))


def test_a_bad_field_is_named():
    violations = [{"field": "spec.stopping.stop", "description": "too many"}, {"field": "x", "description": "y"}]
    error = with_details(CODES.INVALID_ARGUMENT, error_details_pb2.BadRequest(field_violations=violations))
    assert isinstance(error, InvalidRequest)
    assert (error.field, error.description) == ("spec.stopping.stop", "too many")
    assert (error.code, error.message) == (CODES.INVALID_ARGUMENT, "told to people")
    assert (error.reason, error.domain) == ("A_REASON", "tandem")
    assert str(error) == "INVALID_ARGUMENT: told to people"


@pytest.mark.parametrize(("code", "kind"), [(CODES.RESOURCE_EXHAUSTED, Exhausted), (CODES.UNAVAILABLE, Unavailable)])
def test_a_refusal_says_when_to_ask_again(code, kind):
    error = with_details(code, error_details_pb2.RetryInfo(retry_delay=Duration(seconds=2, nanos=500_000_000)))
    assert isinstance(error, kind) and error.retry_after_seconds == 2.5
    assert with_details(code).retry_after_seconds is None


def test_a_fault_says_where_the_log_has_more():
    error = with_details(CODES.INTERNAL, error_details_pb2.RequestInfo(request_id="r7"))
    assert isinstance(error, ServerFault) and error.request_id == "r7"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (CODES.NOT_FOUND, ModelNotFound),
        (CODES.UNAUTHENTICATED, Unauthenticated),
        (CODES.DEADLINE_EXCEEDED, DeadlineExceeded),
        (CODES.CANCELLED, Cancelled),
        (CODES.UNIMPLEMENTED, TandemError),
    ],
)
def test_each_code_has_its_type(code, kind):
    error = from_call(Call(code))
    assert type(error) is kind and error.code is code and error.reason == ""


@pytest.mark.parametrize("trailers", [None, [("grpc-status-details-bin", b"\xff\xff")], [("x-bin", b"")]])
def test_details_that_are_none_change_nothing(trailers):
    error = from_call(Call(CODES.INVALID_ARGUMENT, trailers))
    assert isinstance(error, InvalidRequest) and error.field == "" and error.reason == ""
