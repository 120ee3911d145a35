import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.rpc import error_details_pb2, status_pb2

from tandem.core import errors
from tandem.rpc.errors import RETRY_PUSHBACK_KEY, STATUS_CODES, STATUS_DETAILS_KEY, from_rpc_error, to_status

CODES = grpc.StatusCode
CASES = [
    (errors.InvalidRequest("spec.sampling.top_p", "must be positive"), CODES.INVALID_ARGUMENT),
    (errors.UnknownModel("no model 'x'"), CODES.NOT_FOUND),
    (errors.Unauthenticated("no key"), CODES.UNAUTHENTICATED),
    (errors.Exhausted("used up", 0.25), CODES.RESOURCE_EXHAUSTED),
    (errors.QueueFull("8 requests wait", 0.25), CODES.RESOURCE_EXHAUSTED),
    (errors.KvCacheFull("too long", 3.0), CODES.RESOURCE_EXHAUSTED),
    (errors.RateLimited("slower", 1.5), CODES.RESOURCE_EXHAUSTED),
    (errors.Unavailable("not now", 2.0), CODES.UNAVAILABLE),
    (errors.Loading("loading", 2.0), CODES.UNAVAILABLE),
    (errors.Draining("stopping", 2.0), CODES.UNAVAILABLE),
    (errors.NoReplica("nobody", 2.0), CODES.UNAVAILABLE),
    (errors.DeadlineExceeded("too late"), CODES.DEADLINE_EXCEEDED),
    (errors.EngineFault("a kernel's secret"), CODES.INTERNAL),
]


def rpc_error(code, message, trailers):
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailers), details=message)


def unpack(trailers):
    status = status_pb2.Status.FromString(dict(trailers)[STATUS_DETAILS_KEY])
    details = {}
    for packed in status.details:
        assert isinstance(packed, Any)
        name = packed.type_url.rpartition(".")[2]
        assert name not in details, "each kind of detail at most once"
        details[name] = getattr(error_details_pb2, name)()
        packed.Unpack(details[name])
    return status, details


def test_every_request_error_is_a_case():
    assert {type(error) for error, _ in CASES} == set(STATUS_CODES)


@pytest.mark.parametrize(("error", "code"), CASES, ids=lambda value: type(value).__name__)
def test_code_and_details(error, code):
    status_code, message, trailers = to_status(error, "r-1")
    status, details = unpack(trailers)
    assert (status_code, status.code, status.message) == (code, code.value[0], message)
    assert (details["ErrorInfo"].domain, details["ErrorInfo"].reason) == ("tandem", error.reason)
    assert (
        ("RetryInfo" in details) == (RETRY_PUSHBACK_KEY in dict(trailers)) == isinstance(error, errors.RetryableError)
    )
    assert ("RequestInfo" in details) == (code is CODES.INTERNAL)
    assert ("BadRequest" in details) == (code is CODES.INVALID_ARGUMENT)


@pytest.mark.parametrize(("error", "code"), CASES, ids=lambda value: type(value).__name__)
def test_every_error_survives_a_hop(error, code):
    again = from_rpc_error(rpc_error(*to_status(error, "r-1")))
    assert type(again) is type(error)
    if not isinstance(error, errors.EngineFault):
        assert vars(again) == vars(error)
        assert str(again) == str(error)


def test_pushback_rounds_up():
    _, _, trailers = to_status(errors.QueueFull("full", 0.0001), "r-1")
    assert dict(trailers)[RETRY_PUSHBACK_KEY] == "1"


@pytest.mark.parametrize(
    "error", [ValueError("/secret/path"), errors.ConfigError("/secret/path"), errors.EngineFault("/secret/path")]
)
def test_nothing_of_an_unknown_error_shows(error):
    code, message, trailers = to_status(error, "r-1")
    assert code is CODES.INTERNAL
    assert "secret" not in message + repr(trailers)
    _, details = unpack(trailers)
    assert details["RequestInfo"].request_id == "r-1"


def test_a_long_message_fits_into_trailers():
    code, message, trailers = to_status(errors.InvalidRequest("spec.text", "é" * 100_000), "r-1")
    assert len(message) + sum(len(value) for _, value in trailers) < 4000


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (CODES.UNAVAILABLE, errors.NoReplica),
        (CODES.CANCELLED, errors.NoReplica),
        (CODES.DEADLINE_EXCEEDED, errors.DeadlineExceeded),
        (CODES.RESOURCE_EXHAUSTED, errors.EngineFault),
        (CODES.UNKNOWN, errors.EngineFault),
    ],
)
@pytest.mark.parametrize("trailers", [[], [(STATUS_DETAILS_KEY, b"\xff\xff garbage")]])
def test_errors_of_the_transport(code, kind, trailers):
    assert type(from_rpc_error(rpc_error(code, "socket closed", trailers))) is kind


def test_details_of_another_domain_are_not_ours():
    status = status_pb2.Status(code=14)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="QUEUE_FULL", domain="elsewhere"))
    error = from_rpc_error(rpc_error(CODES.UNAVAILABLE, "", [(STATUS_DETAILS_KEY, status.SerializeToString())]))
    assert type(error) is errors.NoReplica
